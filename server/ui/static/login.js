// Exchanges the token behind "#", or a user's password, for a session. Its cookie is for this server only.
const state = document.getElementById("state");

async function enter(body) {
  state.classList.remove("problem");
  state.textContent = "Logging in …";
  const answer = await fetch("/login", { method: "POST", body: JSON.stringify(body) });
  if (answer.ok) {
    location.replace("/");
    return;
  }
  state.classList.add("problem");
  state.textContent = (await answer.json().catch(() => ({}))).message || `The login failed: status ${answer.status}.`;
}

document.getElementById("passwords")?.addEventListener("submit", (event) => {
  event.preventDefault();
  enter(Object.fromEntries(new FormData(event.target)));
});

const token = location.hash.slice(1);
// Not the address of a screen, which a browser keeps when it is led here.
if (token && !token.startsWith("/")) {
  history.replaceState(null, "", "/login");
  enter({ token });
}
