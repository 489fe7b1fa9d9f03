(() => {
  "use strict";
  const at = id => document.getElementById(id);
  const show = (id, text) => { at(id).textContent = text; at(id).hidden = !text; };
  const element = (tag, className, text) => Object.assign(document.createElement(tag), {className, textContent: text});
  const RETRY = 2000;  // milliseconds

  const request = async (path, options) => {
    let response;
    try {
      response = await fetch(path, options);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error("This page's server does not answer. Is sqz-serve still running?");
    }
    if (!response.ok) throw new Error((await response.json()).error);
    return response;
  };
  const ask = async (path, options) => (await request(path, options)).json();

  let retry;
  const showCard = async () => {
    try {
      const {rows} = await ask("card");
      at("card").replaceChildren(...rows.flatMap(([name, value]) => [element("dt", "", name), element("dd", "", value)]));
      at("card").hidden = false;
      show("card-note", "");
    } catch (error) {
      at("card").hidden = true;
      show("card-note", error.message);
      clearTimeout(retry);
      retry = setTimeout(showCard, RETRY);
    }
  };

  let looking = new AbortController();
  const lookFor = async (file, {id, name}) => {
    looking.abort();
    const mine = looking = new AbortController();
    for (const button of document.querySelectorAll("#top .name")) {
      button.setAttribute("aria-pressed", button.dataset.id === String(id));
    }
    try {
      const answer = await request("map/" + id, {method: "POST", body: file, signal: mine.signal});
      const url = URL.createObjectURL(await answer.blob()), map = at("map");
      map.onload = map.onerror = () => URL.revokeObjectURL(url);
      map.src = url;
      map.alt = "The image with the map of " + name + " over it";
      at("seen-title").textContent = "Where it looked: " + name;
      at("seen").hidden = false;
    } catch (error) {
      if (error.name !== "AbortError") at("seen").hidden = true;  // a model written by another program has no maps
    }
  };

  const row = (shown, file, hasMaps) => {
    const {id, name, wnid, score} = shown;
    const item = element("li", ""), track = element("div", "track");
    const title = element(hasMaps ? "button" : "span", "name", name);
    if (hasMaps) {
      Object.assign(title, {type: "button", title: "Where it looked"}).dataset.id = id;
      title.addEventListener("click", () => lookFor(file, shown));
    }
    if (wnid) title.append(" ", element("span", "wnid", wnid));
    const bar = element("div", "bar");
    bar.style.width = 100 * score + "%";
    track.append(bar);
    track.setAttribute("aria-hidden", "true");
    const percent = score > 0 && score < .0005 ? "<0.1" : (100 * score).toFixed(1);
    item.append(title, element("span", "score", percent + "%"), track);
    return item;
  };

  let running = new AbortController();
  const classify = async file => {
    running.abort();
    looking.abort();
    const mine = running = new AbortController(), start = performance.now();
    const url = URL.createObjectURL(file), preview = at("preview");
    preview.onload = preview.onerror = event => {
      URL.revokeObjectURL(url);
      preview.hidden = event.type === "error";
    };
    preview.src = url;
    preview.alt = file.name;
    at("answer").setAttribute("aria-busy", "true");
    for (const id of ["error", "latency"]) show(id, "");
    at("top").hidden = at("seen").hidden = true;
    show("note", "Asking about " + file.name + "...");
    try {
      const answer = await ask("predict", {method: "POST", body: file, signal: mine.signal});
      at("top").replaceChildren(...answer.top.map(shown => row(shown, file, answer.has_maps)));
      at("top").hidden = false;
      const whole = performance.now() - start;
      show("latency", `The model server answered within ${answer.milliseconds.toFixed(1)} ms; ` +
        `${whole.toFixed(1)} ms passed from the image to this answer.`);
      if (answer.has_maps) lookFor(file, answer.top[0]);
      showCard();  // another version may have taken over
    } catch (error) {
      if (error.name === "AbortError") return;  // a newer image has replaced this one
      show("error", error.message);
    }
    show("note", "");
    at("answer").removeAttribute("aria-busy");
  };

  at("file").addEventListener("change", event => {
    if (event.target.files.length) classify(event.target.files[0]);
    event.target.value = "";  // so that the same image can be chosen again
  });
  // Anywhere on the page: an image dropped outside the zone would otherwise replace the page.
  let depth = 0;
  const over = change => at("drop").classList.toggle("over", (depth = Math.max(0, depth + change)) > 0);
  addEventListener("dragenter", event => { event.preventDefault(); over(1); });
  addEventListener("dragleave", () => over(-1));
  addEventListener("dragover", event => event.preventDefault());
  addEventListener("drop", event => {
    event.preventDefault();
    over(-depth);
    if (event.dataTransfer.files.length) classify(event.dataTransfer.files[0]);
  });
  showCard();
})();
