// Runs model.onnx on an image that the reader drops, in this browser alone. See docs/exporting.md.
import * as ort from "./ort.wasm.min.mjs";

const MOST_PIXELS = 100e6;
const element = (id) => document.getElementById(id);

ort.env.wasm.numThreads = 1; // more need headers of the server
ort.env.wasm.wasmPaths = new URL("./", import.meta.url).href;

function say(text, error = false) {
  element("status").textContent = text;
  element("status").classList.toggle("error", error);
}

/** Refuse what a browser would read otherwise than the package does. The bytes say what a file is, not its name. */
async function checkFile(file) {
  const head = new Uint8Array(await file.slice(0, 132).arrayBuffer());
  const text = (from, to) => String.fromCharCode(...head.slice(from, to));
  if (text(128, 132) === "DICM") throw new Error("this is a DICOM file: use hf-cxr predict");
  const png = text(0, 4) === "\x89PNG";
  const webp = text(0, 4) === "RIFF" && text(8, 12) === "WEBP";
  const jpeg = head[0] === 0xff && head[1] === 0xd8;
  if (!png && !webp && !jpeg && text(0, 2) !== "BM") {
    throw new Error("the page reads PNG, JPEG, WebP and BMP, and this file is none of them: use hf-cxr predict");
  }
  if (png && head[24] === 16) throw new Error("this PNG has 16 bits per channel: use hf-cxr predict");
  const animated = (webp && text(12, 16) === "VP8X" && head[20] & 2) || (png && (await isAnimated(file)));
  if (animated) throw new Error("this file is an animation: give a single image");
}

/** Whether a PNG has the chunk acTL, which is among those before its pixels. */
async function isAnimated(file) {
  const bytes = new DataView(await file.arrayBuffer());
  for (let place = 8; place + 8 <= bytes.byteLength; place += 12 + bytes.getUint32(place)) {
    const name = String.fromCharCode(...[4, 5, 6, 7].map((i) => bytes.getUint8(place + i)));
    if (name === "acTL") return true;
    if (name === "IDAT") return false;
  }
  return false;
}

/** The grey levels of a file, 0 to 255, as Pillow's convert("L") gives them: {data, width, height}. */
async function greyOf(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    throw new Error("this browser cannot read the file as an image");
  }
  const { width, height } = bitmap;
  if (width * height > MOST_PIXELS) throw new Error("the image is too large");
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const pixels = context.getImageData(0, 0, width, height).data;
  const data = new Uint8Array(width * height);
  for (let i = 0; i < data.length; i++) {
    // A canvas keeps a colour times its opacity: of transparent pixels the file's own values are lost.
    if (pixels[4 * i + 3] !== 255) throw new Error("the image has transparent pixels: use hf-cxr predict");
    data[i] = (pixels[4 * i] * 19595 + pixels[4 * i + 1] * 38470 + pixels[4 * i + 2] * 7471 + 0x8000) >> 16;
  }
  return { data, width, height };
}

function showImage({ data, width, height }, name) {
  const canvas = element("image");
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  for (let i = 0; i < data.length; i++) image.data.set([data[i], data[i], data[i], 255], 4 * i);
  canvas.getContext("2d").putImageData(image, 0, 0);
  element("name").textContent = `${name}, ${width} × ${height} pixels`;
}

function node(kind, className, text = "") {
  const made = document.createElement(kind);
  made.className = className;
  made.textContent = text;
  return made;
}

function showBars(model, probabilities) {
  const rows = model.label_names.map((name, i) => ({ name, value: probabilities[i], threshold: model.thresholds[name] }));
  rows.sort((one, other) => other.value - one.value);
  element("bars").replaceChildren(...rows.map(({ name, value, threshold }) => {
    const called = threshold !== null && value >= threshold;
    const row = node("li", called ? "called" : "");
    const track = node("span", "track");
    track.append(node("i", ""));
    track.firstChild.style.width = `${100 * value}%`;
    if (threshold !== null) {
      track.append(node("b", ""));
      track.lastChild.style.left = `${100 * threshold}%`;
      track.title = `threshold ${threshold.toFixed(3)}`;
    }
    const text = `${value < 0.0005 ? "<0.001" : value.toFixed(3)}${called ? " *" : ""}`;
    row.append(node("span", "finding", name.replaceAll("_", " ")), track, node("span", "value", text));
    row.dataset.finding = name;
    row.dataset.probability = value;
    return row;
  }));
  element("title").textContent = model.calibrated ? "Calibrated probabilities" : "Probabilities, not calibrated";
  const any = Object.values(model.thresholds).some((value) => value !== null);
  element("legend").textContent = any
    ? "The upright line is a finding's threshold, chosen on validation images. * and colour: the probability reaches it."
    : "This model has no thresholds: nothing is called present or absent.";
}

function showLimits(model) {
  const lines = [
    ...model.training,
    ...(model.synthetic ? ["It knows nothing of patients: a program drew the images."] : []),
    model.calibrated
      ? "Probabilities assume how often each finding is present in the validation images; elsewhere they can be too high or too low."
      : "The probabilities are not calibrated: they order images, and are not shares of images with the finding.",
    "Any image gets probabilities, a lateral view or a photograph too: this page does not check that it is a frontal chest X-ray.",
    `The image is resized to ${model.resize_size} × ${model.resize_size} pixels, and ${model.image_size} × ${model.image_size} in its centre are seen.`,
    ...(model.licence_note ? [model.licence_note] : []),
  ];
  element("limits").replaceChildren(...lines.map((line) => node("li", "", line)));
}

async function predict(session, model, file) {
  say(`Reading ${file.name} …`);
  await checkFile(file);
  const grey = await greyOf(file);
  say("Running the model …");
  const start = performance.now();
  const images = new ort.Tensor("uint8", grey.data, [1, grey.height, grey.width]);
  const { probabilities } = await session.run({ images });
  const seconds = (performance.now() - start) / 1000;
  showImage(grey, file.name);
  showBars(model, probabilities.data);
  element("result").hidden = false;
  say(`Done in ${seconds.toFixed(2)} s.`);
}

async function main() {
  if (location.protocol === "file:") throw new Error("a browser does not run a model from file://; serve this folder: python -m http.server");
  const model = await (await fetch("model.json")).json();
  showLimits(model);
  const session = await ort.InferenceSession.create("model.onnx", { executionProviders: ["wasm"] });
  let running = null;
  let waiting = null; // the last file that was given meanwhile
  const take = async (file) => {
    if (!file) return;
    if (running) {
      waiting = file;
      say(`${running.name} is still running; ${file.name} is next.`);
      return;
    }
    running = file;
    try {
      await predict(session, model, file);
    } catch (error) {
      element("result").hidden = true;
      say(`${file.name}: ${error.message}`, true);
    } finally {
      running = null;
    }
    const next = waiting;
    waiting = null;
    await take(next);
  };
  const drop = element("drop");
  element("file").addEventListener("change", (event) => {
    const file = event.target.files[0];
    event.target.value = ""; // choosing the same file again is a change, too
    take(file);
  });
  drop.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") element("file").click();
  });
  for (const kind of ["dragover", "drop", "dragleave"]) {
    window.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop") take(event.dataTransfer.files[0]);
    });
  }
  say("Ready.");
}

main().catch((error) => say(`The model cannot be loaded: ${error.message}`, true));
