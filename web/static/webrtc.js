// A connection by WebRTC: peer connection and data channel. It is used once and then thrown away.

import * as api from "./api.js";
import { CallError, LostError } from "./errors.js";
import * as rtvi from "./rtvi.js";
import { summarize } from "./stats.js";

const NO_WAY = "No connection came about. A firewall may block UDP between you and the server; the WebSocket under “Sound and connection” needs none.";
const FAREWELL = "The server ended the call.";
const CONNECT_LIMIT_MS = 20_000;
/** By then the server has given the call up as well. */
const SILENCE_LIMIT_MS = 4_000;

/** What the server says when it ends itself: another one, or the same, may answer soon. */
const SERVER_CLOSED = "server closed";

/**
 * What a connection tells; `websocket.js` has the same.
 * @typedef {object} Listener
 * @property {() => void} onReady the agent can be spoken with
 * @property {(stream: MediaStream) => void} onVoice the agent's sound
 * @property {(message: rtvi.Message) => void} onMessage
 * @property {(steady: boolean) => void} onSteady whether anything passes at present
 * @property {(error: unknown) => void} onEnd once, and nothing after it; null if `close` was called
 */

export class WebRtcCall {
  /** @type {RTCPeerConnection | null} */ #peer = null;
  /** @type {RTCDataChannel | null} */ #channel = null;
  /** @type {RTCRtpSender | null} */ #sender = null;
  /** @type {string | null} */ #id = null;
  /** @type {RTCIceCandidate[]} */ #candidates = [];
  #limit = 0;
  #silence = 0;
  #ready = false;
  #ended = false;

  /** @param {Listener} listener @param {{agent: string | null, resumes?: string | null}} wanted `resumes`: a lost call's id */
  constructor(listener, { agent, resumes = null }) {
    this.listener = listener;
    this.agent = agent;
    this.resumes = resumes;
  }

  /** The server's name for this call; with it another connection carries the conversation on. */
  get id() {
    return this.#id;
  }

  /** Connect. Everything that goes wrong, now or later, comes as `onEnd`. @param {MediaStream} microphone */
  async connect(microphone) {
    this.#limit = setTimeout(() => this.#end(new CallError(NO_WAY)), CONNECT_LIMIT_MS);
    try {
      await this.#connect(microphone);
    } catch (error) {
      this.#end(error);
    }
  }

  /** End it; at any time, any number of times. */
  close() {
    this.#end(null);
  }

  /** Say it in writing. @param {string} text */
  sendText(text) {
    this.#send(rtvi.sendText(text));
  }

  /** The talk button is held. */
  startSpeech() {
    this.#send(rtvi.clientMessage("speech_start"));
  }

  /** The talk button was released. */
  endSpeech() {
    this.#send(rtvi.clientMessage("speech_end"));
  }

  /** Speak through another microphone from now on. @param {MediaStreamTrack} track */
  async setMicrophone(track) {
    await this.#sender?.replaceTrack(track);
  }

  /** Return how the connection is doing; null before there is one. */
  async stats() {
    return this.#peer && !this.#ended ? summarize(await this.#peer.getStats()) : null;
  }

  /** @param {MediaStream} microphone */
  async #connect(microphone) {
    const iceServers = await api.start();
    if (this.#ended) return;
    const peer = this.#openPeer(iceServers, microphone);
    await peer.setLocalDescription();
    if (this.#ended) return;
    const sdp = peer.localDescription?.sdp ?? "";
    const answer = await (this.resumes ? api.resume(sdp, this.resumes) : api.offer(sdp, this.agent ? { agent: this.agent } : {}));
    this.#id = answer.pc_id;
    if (this.#ended) return this.#release();
    await peer.setRemoteDescription({ type: answer.type, sdp: answer.sdp });
    void this.#sendCandidates();
  }

  /** @param {RTCIceServer[]} iceServers @param {MediaStream} microphone */
  #openPeer(iceServers, microphone) {
    const peer = new RTCPeerConnection({ iceServers });
    this.#peer = peer;
    for (const track of microphone.getAudioTracks()) this.#sender = peer.addTrack(track, microphone);
    peer.ontrack = (event) => {
      if (!this.#ended) this.listener.onVoice(event.streams[0] ?? new MediaStream([event.track]));
    };
    peer.onicecandidate = (event) => this.#found(event.candidate);
    peer.onconnectionstatechange = () => this.#follow(peer.connectionState);
    const channel = peer.createDataChannel("rtvi-ai", { ordered: true });
    channel.onopen = () => this.#send(rtvi.clientReady());
    channel.onmessage = (event) => this.#receive(event.data);
    channel.onclose = () => this.#end(new LostError());
    this.#channel = channel;
    return peer;
  }

  /** @param {RTCIceCandidate | null} candidate */
  #found(candidate) {
    if (!candidate?.candidate) return;
    this.#candidates.push(candidate);
    if (this.#id) void this.#sendCandidates();
  }

  async #sendCandidates() {
    const candidates = this.#candidates.splice(0);
    if (!this.#id || this.#ended || candidates.length === 0) return;
    await api.trickle(this.#id, candidates).catch((error) => {
      // One candidate the server does not want is no reason to end: another pair may do.
      console.info("candidates were not taken", error);
    });
  }

  /** @param {RTCPeerConnectionState} state */
  #follow(state) {
    // The connection outlives its call until the server knows; by then the page may be in another one.
    if (this.#ended) return;
    if (state === "failed") this.#end(this.#ready ? new LostError() : new CallError(NO_WAY));
    if (state !== "disconnected" && state !== "connected") return;
    clearTimeout(this.#silence);
    if (state === "disconnected") this.#silence = setTimeout(() => this.#end(new LostError()), SILENCE_LIMIT_MS);
    this.listener.onSteady(state === "connected");
  }

  /** @param {unknown} data */
  #receive(data) {
    const message = rtvi.parse(data);
    if (!message || this.#ended) return;
    if (message.type === "bot-ready") {
      clearTimeout(this.#limit);
      this.#ready = true;
      this.listener.onReady();
    }
    this.listener.onMessage(message);
    if (message.type === "peer-left") this.#end(message.data.reason === SERVER_CLOSED ? new LostError() : new CallError(FAREWELL));
    if (message.type === "error" && message.data.fatal) {
      this.#end(new CallError(`The agent had to stop: ${message.data.error}`));
    }
  }

  /** @param {string} message */
  #send(message) {
    if (this.#channel?.readyState === "open") this.#channel.send(message);
  }

  /** @param {unknown} error */
  #end(error) {
    if (this.#ended) return;
    this.#ended = true;
    clearTimeout(this.#limit);
    clearTimeout(this.#silence);
    if (error instanceof LostError) this.#peer?.close(); // the server keeps the conversation of a call nobody hung up
    else void this.#release();
    this.listener.onEnd(error);
  }

  /** Tell the server, once it has named the call, then close: a connection that only broke off might yet come back. */
  async #release() {
    if (this.#id) await hangUp(this.#id);
    this.#peer?.close();
  }
}

/** End a call on the server, if it is there still. @param {string} id */
export async function hangUp(id) {
  await api.hangUp(id).catch((error) => console.info("the call had ended already", error));
}
