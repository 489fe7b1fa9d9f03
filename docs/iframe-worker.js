// Browsers start no worker from a page that was opened from the disk. The search runs its worker in a frame there.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.srcdoc = `<script>
        const handlers = [];
        self.addEventListener = ((add) => (type, handler, ...rest) =>
          type === "message" ? handlers.push(handler) : add(type, handler, ...rest))(self.addEventListener.bind(self));
        self.receive = (data) => handlers.forEach((handler) => handler({ data }));
        self.postMessage = (data) => self.reply(data);
        self.importScripts = (...urls) => Promise.all(urls.map((url) => new Promise((resolve, reject) => {
          const script = document.createElement("script");
          Object.assign(script, { src: url, onload: resolve, onerror: reject });
          document.body.append(script);
        })));
      </scr` + `ipt><script src="${url}"></scr` + `ipt>`;
      this.ready = new Promise((resolve) => { frame.onload = () => resolve(frame.contentWindow); });
      const append = () => document.body.append(frame);
      document.body ? append() : addEventListener("DOMContentLoaded", append);
      this.ready.then((worker) => {
        worker.reply = (data) => {
          const event = new MessageEvent("message", { data });
          this.dispatchEvent(event);
          if (this.onmessage) this.onmessage(event);
        };
      });
    }

    postMessage(data) {
      this.ready.then((worker) => worker.receive(data));
    }

    terminate() {}
  };
}
