// Loads the page. A browser that aborts a request of a script, as when an address of its machine changes, does not try it
// again by itself.

const KEY = "wharf.attempts";

import("/static/app.js").then(
  () => sessionStorage.removeItem(KEY),
  (error) => {
    const attempts = Number(sessionStorage.getItem(KEY) ?? 0);
    if (attempts >= 5) {
      sessionStorage.removeItem(KEY);
      document.querySelector("#app .empty").textContent = `The page could not be loaded: ${error.message}`;
      return;
    }
    sessionStorage.setItem(KEY, attempts + 1);
    setTimeout(() => location.reload(), 200);
  },
);
