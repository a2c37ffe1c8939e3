// A page opened from disk may start no worker, so that its search runs in a hidden frame instead.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      this.inner = frame.contentWindow;
      this.ready = new Promise((resolve) => {
        this.inner.postMessage = (data) =>
          this.dispatchEvent(new MessageEvent("message", { data }));
        this.inner.importScripts = (...urls) =>
          urls.reduce((before, next) => before.then(() => load(this.inner, next)), Promise.resolve());
        load(this.inner, url).then(resolve);
      });
    }
    postMessage(data) {
      this.ready.then(() => this.inner.dispatchEvent(new MessageEvent("message", { data })));
    }
  };
  function load(inner, url) {
    return new Promise((resolve, reject) => {
      const script = inner.document.createElement("script");
      Object.assign(script, { src: new URL(url, location), onload: resolve, onerror: reject });
      inner.document.body.append(script);
    });
  }
}
