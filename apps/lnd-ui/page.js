"use strict";
const EVERY = 5000; // milliseconds
// The states of lnd's wallet: what to tell, and whether somebody has to do something.
const STATES = {
  NON_EXISTING: ["There is no wallet yet.", true],
  LOCKED: ["The wallet is locked.", true],
  UNLOCKED: ["The wallet is open, the node is starting.", false],
  RPC_ACTIVE: ["The node is starting.", false],
  SERVER_ACTIVE: ["The node is running.", false],
  WAITING_TO_START: ["The node waits for its turn in a cluster.", false],
};

function say(text, bad) {
  const line = document.getElementById("said");
  line.textContent = text;
  line.className = bad ? "bad" : "";
}

async function refresh() {
  try {
    const answer = await fetch("state");
    if (!answer.ok) throw new Error(`the node does not answer (${answer.status})`);
    const { state } = await answer.json();
    say(...(STATES[state] ?? [`The node says ${state}.`, false]));
  } catch (error) {
    say(`${error.message}; asking again every ${EVERY / 1000} s.`, true);
  } finally {
    setTimeout(refresh, EVERY);
  }
}
refresh();
