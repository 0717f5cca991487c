// Before the first paint: the chosen theme, if it is not the system's.
{
  const chosen = localStorage.getItem("wharf.theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
}
