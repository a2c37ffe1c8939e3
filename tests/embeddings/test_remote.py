"""Stores in an object store, through a server of the S3 protocol that the tests start."""

from __future__ import annotations

import socket
import sys

import numpy as np
import pytest

from medplus.embeddings.export import export_store
from medplus.embeddings.store import open_store
from medplus.errors import MedplusError, StoreError, UsageError
from medplus.vocabulary import SPLITS

obstore = pytest.importorskip("obstore")
moto_server = pytest.importorskip("moto.server")

pytestmark = [pytest.mark.usefixtures("fast_disk", "credentials"), pytest.mark.timeout(120)]

ARRAYS = ("embeddings", "labels", "index", "names")


@pytest.fixture(scope="module")
def endpoint():
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def credentials(endpoint, monkeypatch):
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def bucket(endpoint, credentials):
    """A bucket of the object store, empty."""
    import boto3

    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket="embeddings")
    yield obstore.store.from_url("s3://embeddings")
    paths = [item["path"] for part in obstore.list(obstore.store.from_url("s3://embeddings"))
             for item in part]  # fmt: skip
    obstore.delete(obstore.store.from_url("s3://embeddings"), paths)


@pytest.fixture
def local(write_store):
    rng = np.random.default_rng(0)
    values = [rng.normal(size=(n, 3)).astype("f4") for n in (2100, 5, 4)]
    return write_store(values, [rng.integers(0, 2, len(v)) for v in values], classes=2)


@pytest.fixture
def url(bucket, local):
    """The URL of a store that was copied file by file."""
    for file in local.path.rglob("*"):
        if file.is_file():
            key = f"deep/x.zarr/{file.relative_to(local.path)}"
            obstore.put(bucket, key, file.read_bytes())
    return "s3://embeddings/deep/x.zarr"


def test_a_store_by_url_is_the_store_that_was_copied_there(url, local, tmp_path):
    store = open_store(url)
    assert store.info == local.info
    assert store.verify() == []
    for split in SPLITS:
        for name in ARRAYS:
            np.testing.assert_array_equal(getattr(store, name)(split), getattr(local, name)(split))
    seen = {}
    store.visit("train", lambda rows, values: seen.update({rows.start: values.sum()}))
    assert sorted(seen) == [0, 1024, 2048]
    export_store(store, tmp_path / "x.zarr.zip")
    assert open_store(tmp_path / "x.zarr.zip").verify() == []


@pytest.mark.parametrize("harm", ["flip", "cut", "gone"])
def test_damage_is_found_and_said_to_copy_again(harm, url, bucket):
    key = "deep/x.zarr/train/embeddings/c/1/0"
    content = bytearray(obstore.get(bucket, key).bytes().to_bytes())
    if harm == "gone":
        obstore.delete(bucket, key)
    else:
        content[100] ^= 1
        obstore.put(bucket, key, bytes(content[:-1] if harm == "cut" else content))
    store = open_store(url)
    assert [(d.array, d.chunk) for d in store.verify()] == [("train/embeddings", 1)]
    with pytest.raises(StoreError, match=r"1 of 3 chunks .*first: 1.*copy or export it again"):
        store.embeddings("train")


def test_what_is_not_there_or_cannot_be_reached_is_said(bucket, monkeypatch, url):
    for place in ("s3://embeddings/none.zarr", "s3://nobucket/x.zarr"):
        with pytest.raises(StoreError, match=f"no embedding store at {place}"):
            open_store(place)
    with pytest.raises(UsageError, match="names no object store"):
        open_store("gopher://x/y")
    with socket.socket() as unused, monkeypatch.context() as patch:
        unused.bind(("127.0.0.1", 0))
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(StoreError, match=r"s3://embeddings.* cannot be read: .*AWS_ENDPOINT"):
            open_store(url)


def test_the_command_line_takes_a_url(url, cli, credentials):
    assert cli("store", "verify", url, "--json").document["stores"][0]["status"] == "intact"
    assert cli("store", "info", url, "--json").document["path"] == url
    assert cli("store", "export", url, "--to", "x.zarr.zip").code == 0
    by_url = cli("knn", "--store", url, "--k", 5, "--runs", "a", "--json")
    by_file = cli("knn", "--store", "x.zarr.zip", "--k", 5, "--runs", "b", "--json")
    assert by_url.code == by_file.code == 0, by_url.err
    [one], [other] = by_url.document["runs"], by_file.document["runs"]
    assert one["metrics"] == other["metrics"]
    again = cli("knn", "--store", url, "--k", 5, "--runs", "a", "--json")
    assert again.document["runs"][0]["run_id"] == one["run_id"]
    refused = cli("knn", "--store", url, "--dataset", "other", "--backbone", "toynet")
    assert refused.code != 0


def test_without_obstore_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(MedplusError, match="pip install obstore"):
        open_store("s3://embeddings/x.zarr")
