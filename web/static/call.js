// One call: microphone, peer connection, data channel. It is used once and then thrown away.

import * as api from "./api.js";
import { CallError } from "./errors.js";
import * as rtvi from "./rtvi.js";

const NO_WAY = "No connection came about. A firewall may block UDP between you and the server.";
const LOST = "The connection was lost. Start again when you are back online.";
const FAREWELL = "The server ended the call.";
const CONNECT_LIMIT_MS = 20_000;
/** By then the server has given the call up as well. */
const SILENCE_LIMIT_MS = 4_000;

/** Cancelling the echo lets the agent be interrupted on loudspeakers: it does not hear itself. */
const MICROPHONE = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 };

/**
 * @typedef {object} Listener
 * @property {() => void} onReady the agent can be spoken with
 * @property {(stream: MediaStream) => void} onMicrophone the caller's sound
 * @property {(stream: MediaStream) => void} onVoice the agent's sound
 * @property {(message: rtvi.Message) => void} onMessage
 * @property {(steady: boolean) => void} onSteady whether packets pass at present
 * @property {(error: unknown) => void} onEnd once; null if the caller hung up
 */

export class Call {
  /** @type {MediaStream | null} */ #microphone = null;
  /** @type {RTCPeerConnection | null} */ #peer = null;
  /** @type {RTCDataChannel | null} */ #channel = null;
  /** @type {string | null} */ #id = null;
  /** @type {RTCIceCandidate[]} */ #candidates = [];
  #limit = 0;
  #silence = 0;
  #ready = false;
  #ended = false;

  /** @param {Listener} listener @param {Record<string, unknown>} requestData who to speak with */
  constructor(listener, requestData) {
    this.listener = listener;
    this.requestData = requestData;
  }

  /** Connect. Everything that goes wrong, now or later, comes as `onEnd`. */
  async connect() {
    this.#limit = setTimeout(() => this.#end(new CallError(NO_WAY)), CONNECT_LIMIT_MS);
    try {
      await this.#connect();
    } catch (error) {
      this.#end(error);
    }
  }

  /** End the call; at any time, any number of times. */
  hangUp() {
    this.#end(null);
  }

  /** @param {boolean} muted */
  mute(muted) {
    for (const track of this.#microphone?.getAudioTracks() ?? []) track.enabled = !muted;
  }

  /** Say it in writing. @param {string} text */
  sendText(text) {
    this.#send(rtvi.sendText(text));
  }

  async #connect() {
    await this.#openMicrophone();
    if (this.#ended) return;
    const iceServers = await api.start();
    if (this.#ended) return;
    const peer = this.#openPeer(iceServers);
    await peer.setLocalDescription();
    if (this.#ended) return;
    const answer = await api.offer(peer.localDescription?.sdp ?? "", this.requestData);
    this.#id = answer.pc_id;
    if (this.#ended) return this.#release();
    await peer.setRemoteDescription({ type: answer.type, sdp: answer.sdp });
    void this.#sendCandidates();
  }

  async #openMicrophone() {
    if (!navigator.mediaDevices) {
      throw new CallError("Browsers lend the microphone to secure pages only: open this page over https, or on localhost.");
    }
    const stream = await navigator.mediaDevices.getUserMedia({ audio: MICROPHONE });
    if (this.#ended) return stopTracks(stream);
    this.#microphone = stream;
    stream.getAudioTracks()[0].onended = () => this.#end(new CallError("The microphone was taken away."));
    this.listener.onMicrophone(stream);
  }

  /** @param {RTCIceServer[]} iceServers */
  #openPeer(iceServers) {
    const peer = new RTCPeerConnection({ iceServers });
    this.#peer = peer;
    for (const track of this.#microphone?.getTracks() ?? []) peer.addTrack(track, this.#microphone ?? new MediaStream());
    peer.ontrack = (event) => {
      if (!this.#ended) this.listener.onVoice(event.streams[0] ?? new MediaStream([event.track]));
    };
    peer.onicecandidate = (event) => this.#found(event.candidate);
    peer.onconnectionstatechange = () => this.#follow(peer.connectionState);
    const channel = peer.createDataChannel("rtvi-ai", { ordered: true });
    channel.onopen = () => this.#send(rtvi.clientReady());
    channel.onmessage = (event) => this.#receive(event.data);
    channel.onclose = () => this.#end(new CallError(FAREWELL));
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
      console.warn("candidates were not taken", error);
    });
  }

  /** @param {RTCPeerConnectionState} state */
  #follow(state) {
    // The connection outlives its call until the server knows; by then the page may be in another one.
    if (this.#ended) return;
    if (state === "failed") this.#end(new CallError(this.#ready ? LOST : NO_WAY));
    if (state !== "disconnected" && state !== "connected") return;
    clearTimeout(this.#silence);
    if (state === "disconnected") this.#silence = setTimeout(() => this.#end(new CallError(LOST)), SILENCE_LIMIT_MS);
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
    if (message.type === "peer-left") this.#end(new CallError(FAREWELL));
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
    if (this.#microphone) stopTracks(this.#microphone);
    void this.#release();
    this.listener.onEnd(error);
  }

  /** Tell the server, once it has named the call, then close: a connection that only broke off might yet come back. */
  async #release() {
    const told = this.#id ? api.hangUp(this.#id) : Promise.resolve();
    await told.catch((error) => console.info("the call had ended already", error));
    this.#peer?.close();
  }
}

/** @param {MediaStream} stream */
function stopTracks(stream) {
  for (const track of stream.getTracks()) track.stop();
}
