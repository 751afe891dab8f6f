// The server's HTTP side: everything the page asks of it, with the key if one is needed.

const KEY = "vocal-node-key";
const LIMIT_MS = 10_000;

/** An answer that is not a success, or none at all (status 0). */
export class ApiError extends Error {
  /**
   * @param {number} status
   * @param {string} message
   * @param {number | null} retryAfterS
   */
  constructor(status, message, retryAfterS = null) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.retryAfterS = retryAfterS;
  }
}

/** Remember the key for as long as this tab lives. @param {string} key */
export function useKey(key) {
  sessionStorage.setItem(KEY, key);
}

/** Whether a key is sent along. */
export function hasKey() {
  return sessionStorage.getItem(KEY) !== null;
}

/** Ask for a call. @returns {Promise<RTCIceServer[]>} the ICE servers to use */
export async function start() {
  const answer = await request("POST", "start", { enableDefaultIceServers: true, body: {} });
  return answer.iceConfig?.iceServers ?? [];
}

/**
 * Send the offer.
 * @param {string} sdp
 * @param {Record<string, unknown>} requestData who to speak with
 * @returns {Promise<{sdp: string, type: RTCSdpType, pc_id: string}>}
 */
export function offer(sdp, requestData) {
  return request("POST", "api/offer", { sdp, type: "offer", request_data: requestData });
}

/**
 * Add candidates found after the offer was sent.
 * @param {string} id
 * @param {RTCIceCandidate[]} candidates
 */
export function trickle(id, candidates) {
  return request("PATCH", "api/offer", {
    pc_id: id,
    candidates: candidates.map((c) => ({
      candidate: c.candidate, sdp_mid: c.sdpMid, sdp_mline_index: c.sdpMLineIndex,
    })),
  });
}

/** End the call on the server; also works while the page is being closed. @param {string} id */
export function hangUp(id) {
  return request("DELETE", `api/offer/${encodeURIComponent(id)}`);
}

/**
 * @param {string} method
 * @param {string} path relative to the page, so that it also works behind a path prefix
 * @param {unknown} [body]
 * @returns {Promise<any>}
 */
async function request(method, path, body) {
  const key = sessionStorage.getItem(KEY);
  /** @type {Record<string, string>} */
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const response = await fetch(path, {
    method, headers, keepalive: method === "DELETE", body: body === undefined ? undefined : JSON.stringify(body),
    signal: AbortSignal.timeout(LIMIT_MS),
  }).catch((error) => {
    throw new ApiError(0, String(error));
  });
  if (!response.ok) throw await failure(response);
  return response.json().catch(() => ({}));
}

/** @param {Response} response */
async function failure(response) {
  const body = await response.json().catch(() => null);
  const retryAfter = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  const message = body?.error?.message ?? response.statusText;
  return new ApiError(response.status, String(message), Number.isNaN(retryAfter) ? null : retryAfter);
}
