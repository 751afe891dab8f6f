// Pipecat's own client against our server, unmodified; the test calls `connect`, reads `seen`, calls `disconnect`.

import { PipecatClient, RTVIEvent } from "@pipecat-ai/client-js";
import { SmallWebRTCTransport, WavMediaManager } from "@pipecat-ai/small-webrtc-transport";

const seen = { states: [], ready: null, transcripts: [], spoken: [], messages: [], errors: [], peak: 0, tracks: 0 };
let client = null;

/** Connect as the client's guide says: ask the server's /start, then let the transport make its offer. */
async function connect(server) {
  client = new PipecatClient({
    // The other media manager loads code from a CDN; this one is in the package.
    transport: new SmallWebRTCTransport({ mediaManager: new WavMediaManager() }),
    enableMic: true,
    enableCam: false,
    callbacks: {
      onTransportStateChanged: (state) => seen.states.push(state),
      onBotReady: (data) => (seen.ready = data),
      onUserTranscript: (data) => seen.transcripts.push(data),
      onBotTtsText: (data) => seen.spoken.push(data.text),
      onServerMessage: (data) => seen.messages.push(data),
      onError: (message) => seen.errors.push(message),
      onMessageError: (message) => seen.errors.push(message),
    },
  });
  client.on(RTVIEvent.TrackStarted, (track, participant) => {
    if (!participant?.local && track.kind === "audio") listen(track);
  });
  return client.startBotAndConnect({
    endpoint: `${server}/start`,
    requestData: { enableDefaultIceServers: true, body: {} },
  });
}

/** Play the bot, and keep the loudest sample heard. */
function listen(track) {
  seen.tracks += 1;
  const stream = new MediaStream([track]);
  const element = document.createElement("audio");
  element.srcObject = stream;
  document.body.append(element);
  element.play();
  const context = new AudioContext();
  const analyser = new AnalyserNode(context, { fftSize: 2048 });
  context.createMediaStreamSource(stream).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    seen.peak = Math.max(seen.peak, ...samples.map(Math.abs));
  }, 20);
}

window.pipecat = { seen, connect, sendText: (text) => client.sendText(text), disconnect: () => client.disconnect() };
