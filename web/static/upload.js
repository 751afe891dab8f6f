// Sending a file: what `request` of api.js does, and how far it has come, which `fetch` does not tell.

import { accessToken, ApiError, failure } from "./api.js";

/**
 * Send a form. Throws ApiError for whatever is no success.
 * @param {string} path relative to the page
 * @param {FormData} form
 * @param {(share: number) => void} onProgress 0..1; at 1 the server has it all and is at work
 * @param {number} limitMs
 * @returns {Promise<any>} the answer's JSON
 */
export async function upload(path, form, onProgress, limitMs) {
  const asked = new XMLHttpRequest();
  asked.open("POST", path);
  asked.timeout = limitMs;
  if (accessToken()) asked.setRequestHeader("Authorization", `Bearer ${accessToken()}`);
  asked.upload.addEventListener("progress", ({ loaded, total }) => onProgress(total ? loaded / total : 0));
  await new Promise((resolve, reject) => {
    asked.addEventListener("load", resolve);
    for (const how of ["error", "timeout", "abort"]) asked.addEventListener(how, () => reject(new ApiError(0, how)));
    asked.send(form);
  });
  const retryAfter = asked.getResponseHeader("Retry-After");
  const headers = retryAfter === null ? undefined : { "Retry-After": retryAfter };
  const response = new Response(asked.responseText, { status: asked.status, statusText: asked.statusText, headers });
  if (!response.ok) throw await failure(response);
  return response.json();
}
