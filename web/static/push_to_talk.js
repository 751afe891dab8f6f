// Push to talk: the caller speaks while the space bar or the button is held, and the turn ends when it is let go.

/** Space belongs to what is focused there, not to talking. */
const TAKES_SPACE = "input, textarea, select, button, summary, a, dialog";

/**
 * @param {HTMLButtonElement} button
 * @param {{canPress: () => boolean, press: () => void, release: () => void}} to
 */
export function offerPushToTalk(button, { canPress, press, release }) {
  let held = false;
  const hold = () => {
    if (held || !canPress()) return;
    held = true;
    press();
  };
  const letGo = () => {
    if (!held) return;
    held = false;
    release();
  };
  button.addEventListener("pointerdown", (event) => {
    button.setPointerCapture(event.pointerId);
    hold();
  });
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) button.addEventListener(end, letGo);
  const isTalking = (/** @type {KeyboardEvent} */ event) =>
    event.target === button || !(event.target instanceof Element && event.target.closest(TAKES_SPACE));
  addEventListener("keydown", (event) => {
    if (event.code !== "Space" || event.ctrlKey || event.metaKey || event.altKey || !isTalking(event) || !canPress()) return;
    event.preventDefault(); // no scrolling
    hold();
  });
  addEventListener("keyup", (event) => {
    if (event.code === "Space") letGo();
  });
  addEventListener("blur", letGo);
  return letGo;
}
