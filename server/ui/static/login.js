// Exchanges the token behind "#" for a session. Its cookie is for this server only.
const state = document.getElementById("state");
const token = location.hash.slice(1);
// Not the address of a screen, which a browser keeps when it is led here.
if (token && !token.startsWith("/")) {
  history.replaceState(null, "", "/login");
  state.textContent = "Logging in …";
  const answer = await fetch("/login", { method: "POST", body: JSON.stringify({ token }) });
  if (answer.ok) {
    location.replace("/");
  } else {
    state.classList.add("problem");
    state.textContent = (await answer.json().catch(() => ({}))).message || `The login failed: status ${answer.status}.`;
  }
}
