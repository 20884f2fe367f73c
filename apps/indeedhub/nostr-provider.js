// SPDX-License-Identifier: MIT
// window.nostr (https://github.com/nostr-protocol/nips/blob/master/07.md) for an app that is shown in a frame of the
// node's own pages: they have the keys, and ask the user. A page that is not in a frame is left as it is, so that an
// extension of the browser can do the same.
"use strict";
(() => {
  if (window === window.top || window.nostr) return;
  const PATIENCE = 60000; // milliseconds for the user to answer
  const waiting = new Map();
  let last = 0;

  // The node's pages are on this host, and on the port of its protocol.
  const node = `${location.protocol}//${location.hostname}`;

  function ask(method, params = {}) {
    return new Promise((resolve, reject) => {
      const id = ++last;
      const late = setTimeout(() => {
        waiting.delete(id);
        reject(new Error(`the node has not answered ${method}`));
      }, PATIENCE);
      waiting.set(id, { resolve, reject, late });
      window.parent.postMessage({ type: "nostr-request", id, method, params }, node);
    });
  }

  window.addEventListener("message", ({ source, origin, data }) => {
    if (source !== window.parent || origin !== node || !data || data.type !== "nostr-response") return;
    const asked = waiting.get(data.id);
    if (!asked) return;
    waiting.delete(data.id);
    clearTimeout(asked.late);
    if (data.error) asked.reject(new Error(data.error));
    else asked.resolve(data.result);
  });

  const cipher = (name) => ({
    encrypt: (pubkey, plaintext) => ask(`${name}.encrypt`, { pubkey, plaintext }),
    decrypt: (pubkey, ciphertext) => ask(`${name}.decrypt`, { pubkey, ciphertext }),
  });
  window.nostr = {
    getPublicKey: () => ask("getPublicKey"),
    signEvent: (event) => ask("signEvent", { event }),
    getRelays: () => ask("getRelays"),
    nip04: cipher("nip04"),
    nip44: cipher("nip44"),
  };
})();
