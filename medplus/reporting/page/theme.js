// Runs before anything is painted, so that the page does not flash in the other theme.
try {
  const theme = localStorage.getItem("medplus-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch (error) {
  // Storage may be refused, as in a mail's preview; the system's choice holds then.
}
