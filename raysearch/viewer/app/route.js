// The state of the page is its address: #/VIEW/ARGUMENT?KEY=VALUE. So every state can be sent, and
// the back button works.

function route() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [view = "", argument = ""] = path.split("/").map(decodeURIComponent);
  return { view: view || "maps", argument, query: new URLSearchParams(query) };
}

function address(view, argument = "", query = {}) {
  const given = new URLSearchParams(Object.entries(query).filter(([, value]) => value));
  const path = [view, argument].filter(Boolean).map(encodeURIComponent).join("/");
  return `#/${path}${given.size ? `?${given}` : ""}`;
}

function go(view, argument = "", query = {}) {
  location.hash = address(view, argument, query);
}

// Changes keys of the query and leaves the rest of the address.
function changed(changes) {
  const now = route();
  return address(now.view, now.argument, { ...Object.fromEntries(now.query), ...changes });
}
