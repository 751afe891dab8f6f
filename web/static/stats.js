// What a connection's statistics say that matters for speech (W3C, Identifiers for WebRTC's Statistics API).

/**
 * How a connection is doing. Counters begin with it; null is not known, or not yet.
 * @typedef {object} Summary
 * @property {"webrtc" | "websocket"} way
 * @property {number | null} roundTripMs
 * @property {number | null} [jitterMs] of what comes in (RFC 3550, section 6.4.1)
 * @property {number} [received] packets
 * @property {number} [lost] packets that were to come in
 * @property {number | null} [sentLostPercent] of what was sent lately, by the server's account
 * @property {number | null} [bufferedSumMs] what all played samples together have waited in the jitter buffer
 * @property {number} [played] samples
 * @property {number | null} [bufferedMs] what waits to be played
 * @property {number} [underruns] times that nothing was there to be played
 * @property {number} [droppedMs] of the caller's sound, which the network did not take
 * @property {number} sentBytes
 * @property {number} receivedBytes
 * @property {string} [codec]
 * @property {string} [path] the candidate pair
 */

/** @param {RTCStatsReport} report @returns {Summary} */
export function summarize(report) {
  const all = [...report.values()];
  const inbound = all.find((one) => one.type === "inbound-rtp" && one.kind === "audio") ?? {};
  const outbound = all.find((one) => one.type === "outbound-rtp" && one.kind === "audio") ?? {};
  const remote = all.find((one) => one.type === "remote-inbound-rtp" && one.kind === "audio") ?? {};
  const pair = usedPair(report, all) ?? {};
  return {
    way: "webrtc",
    roundTripMs: inMs(pair.currentRoundTripTime ?? remote.roundTripTime),
    jitterMs: inMs(inbound.jitter),
    received: inbound.packetsReceived ?? 0,
    lost: Math.max(0, inbound.packetsLost ?? 0),
    sentLostPercent: typeof remote.fractionLost === "number" ? 100 * remote.fractionLost : null,
    bufferedSumMs: inMs(inbound.jitterBufferDelay),
    played: inbound.jitterBufferEmittedCount ?? 0,
    sentBytes: outbound.bytesSent ?? 0,
    receivedBytes: inbound.bytesReceived ?? 0,
    codec: codecName(report.get(inbound.codecId)),
    path: pathName(report.get(pair.localCandidateId), report.get(pair.remoteCandidateId)),
  };
}

/** @param {RTCStatsReport} report @param {any[]} all */
function usedPair(report, all) {
  const transport = all.find((one) => one.type === "transport" && one.selectedCandidatePairId);
  if (transport) return report.get(transport.selectedCandidatePairId);
  return all.find((one) => one.type === "candidate-pair" && one.nominated && one.state === "succeeded"); // Firefox
}

/** @param {any} codec */
function codecName(codec) {
  if (!codec) return "";
  const name = String(codec.mimeType).replace("audio/", "");
  return `${name[0].toUpperCase()}${name.slice(1)}, ${codec.clockRate / 1000} kHz`;
}

const KINDS = { host: "direct", srflx: "through NAT", prflx: "through NAT", relay: "by relay" };

/** @param {any} local @param {any} remote */
function pathName(local, remote) {
  if (!local || !remote) return "";
  const kinds = [local, remote].map(({ candidateType }) => KINDS[/** @type {keyof typeof KINDS} */ (candidateType)] ?? candidateType);
  const how = kinds[0] === kinds[1] ? kinds[0] : kinds.join(" to ");
  return `${String(local.protocol).toUpperCase()} ${how} (${local.candidateType} – ${remote.candidateType})`;
}

/** @param {unknown} seconds */
function inMs(seconds) {
  return typeof seconds === "number" ? seconds * 1000 : null;
}
