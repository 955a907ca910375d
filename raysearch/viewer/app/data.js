// Reads the data of a run: from elements of the page, else from the files view/NAME.js beside it.
// A file holds one call, raysearch("NAME", {...}). A page from a server parses what stands in it and
// runs nothing; a page from a disk may read no file, so there a script element runs the call.

const waiting = new Map();
const known = new Map();
const MODE = JSON.parse($("#mode").textContent);

const stamps = new WeakMap(); // of values: the state of the run that they are of

window.raysearch = (name, values, stamp = "") => {
  waiting.get(name)?.(stamped(values, stamp));
  waiting.delete(name);
};

function stamped(values, stamp) {
  stamps.set(values, stamp);
  return values;
}

function parsed(text) {
  const [, values, stamp = ""] = JSON.parse(`[${text.slice(text.indexOf("(") + 1, text.lastIndexOf(")"))}]`);
  return stamped(values, stamp);
}

// What is not where the page looks for it, as told from all else that may go wrong.
class Missing extends Error {}

function load(name, folder = "") {
  const key = folder + name;
  if (!known.has(key)) {
    const promise = folder === "" ? own(name) : other(name, folder);
    promise.catch(() => known.delete(key));
    known.set(key, promise);
  }
  return known.get(key);
}

async function own(name) {
  const inside = document.getElementById(name);
  if (inside) return stamped(JSON.parse(inside.textContent), MODE.stamp);
  return location.protocol === "file:" ? fromScript(name) : fetched(`view/${name}.js`);
}

async function fetched(path) {
  const answer = await fetch(path, { cache: "no-cache" });
  if (answer.status === 404) throw new Missing(`${path} is not there`);
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${answer.statusText}`);
  return parsed(await answer.text());
}

function fromScript(name) {
  return new Promise((take, refuse) => {
    waiting.set(name, take);
    const made = el("script", { src: `view/${name}.js` });
    made.addEventListener("error", () =>
      refuse(new Missing(`view/${name}.js is not beside this page; send the whole folder of the run`)),
    );
    document.head.append(made);
  });
}

// Of another run: its files, or its page where they are inside; nothing in that page is run.
async function other(name, folder) {
  try {
    return await fetched(`${folder}view/${name}.js`);
  } catch (error) {
    if (!(error instanceof Missing)) throw error;
    const answer = await fetch(`${folder}report.html`);
    if (!answer.ok) throw error;
    return fromPage(await answer.text(), name);
  }
}

// A file of a run from the text of its page, or of one of its files; nothing in it is run.
function fromPage(text, name) {
  if (text.startsWith(`raysearch("${name}"`)) return parsed(text);
  const page = new DOMParser().parseFromString(text, "text/html");
  const found = page.getElementById(name);
  if (!found) throw new Missing("that file holds no run; choose its report.html or view/index.js");
  return stamped(JSON.parse(found.textContent), JSON.parse(page.getElementById("mode").textContent).stamp);
}
