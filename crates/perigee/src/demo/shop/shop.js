// Pages are the same for everybody, so that caches may keep them. Who is looking is asked for apart, and only of who is known.
if (document.cookie.split("; ").includes("known=1")) {
  const me = document.querySelector("#me");
  fetch("/api/me").then((answer) => answer.json()).then(({ name, items }) => {
    me.textContent = name ? `${name}’s cart (${items})` : items ? `Cart (${items})` : "Cart";
  }).catch(() => { /* The link says "Cart" already, and leads there. */ });
}
