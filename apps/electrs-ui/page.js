"use strict";
const AGAIN = 5000, ALIVE = 60000; // milliseconds

function say(text, bad) {
  const line = document.getElementById("said");
  line.textContent = text;
  line.className = bad ? "bad" : "";
}

function show(facts) {
  const list = document.getElementById("facts");
  list.replaceChildren(...Object.entries(facts).flatMap(([name, value]) => {
    const term = document.createElement("dt"), text = document.createElement("dd");
    term.textContent = name;
    text.textContent = value;
    return [term, text];
  }));
}

function connect() {
  const socket = new WebSocket(new URL("ws", location).href.replace("http", "ws"));
  const facts = {};
  let last = 0, alive;
  const ask = (method, params) => socket.send(JSON.stringify({ jsonrpc: "2.0", id: ++last, method, params }));

  socket.onopen = () => {
    ask("server.version", ["archy status page", ["1.4", "1.6"]]); // must be the first
    ask("blockchain.headers.subscribe", []);
    alive = setInterval(ask, ALIVE, "server.ping", []);
  };
  socket.onmessage = ({ data }) => {
    const { id, method, params, result, error } = JSON.parse(data);
    if (error) return say(error.message, true);
    if (id === 1) [facts.Server, facts.Protocol] = result;
    if (id === 2) facts.Height = result.height;
    if (method === "blockchain.headers.subscribe") facts.Height = params[0].height;
    if ("Height" in facts) say("Serving wallets.", false);
    show(facts);
  };
  socket.onclose = () => {
    clearInterval(alive);
    show({});
    const why = "it serves nobody until it has caught up with the chain";
    say(`The server does not answer: ${why}. Asking again every ${AGAIN / 1000} s.`, true);
    setTimeout(connect, AGAIN);
  };
}
connect();
