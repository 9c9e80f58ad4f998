// The page: SERIES (series.js) lists the series, voxels.js reads one. Everything comes by <script>, for a page that was
// opened as a file may not fetch.
"use strict";

const REFERENCE = 1, PREDICTION = 2, BOTH = 3; // labels, as figures/viewer/case.py packs them
const COLOURS = { [REFERENCE]: [0, 200, 70], [PREDICTION]: [230, 30, 40], [BOTH]: [250, 220, 0] };
const WINDOWS = { lung: [-500, 1600], mediastinum: [40, 400], bone: [400, 1800] }; // centre and width in HU
const PLANES = { axial: 2, coronal: 1, sagittal: 0 }; // the viewer's axis that a plane is a slice of
const SOLID = [-250, 900]; // HU: range of the colours of the 3D view
const STATUS = {
  true_positive: ["both", "true positive"], false_positive: ["prediction", "false positive"],
  missed: ["reference", "missed"], candidate: ["prediction", "candidate"], place: ["reference", "place only, no outline"],
};
const state = { entry: null, nodule: -1, layout: "planes", window: [...WINDOWS.lung], prediction: true, reference: true, loading: 0 };
const byId = (id) => document.getElementById(id);
const { Niivue, NVImage, SLICE_TYPE, SHOW_RENDER, DRAG_MODE, MULTIPLANAR_TYPE, cmapper } = niivue;
const LAYOUTS = {
  planes: SLICE_TYPE.MULTIPLANAR, axial: SLICE_TYPE.AXIAL, coronal: SLICE_TYPE.CORONAL, sagittal: SLICE_TYPE.SAGITTAL,
  render: SLICE_TYPE.RENDER,
};
const viewer = new Niivue({
  logLevel: "error", isRadiologicalConvention: true, sagittalNoseLeft: true, showAllOrientationMarkers: true,
  tileMargin: 2,
  backColor: [0, 0, 0, 1], crosshairColor: [0.3, 0.65, 1, 0.75], crosshairWidthUnit: "mm", crosshairGap: 24,
  fontColor: [0.75, 0.8, 0.85, 1], fontMinPx: 12, isOrientCube: false, show3Dcrosshair: true, loadingText: "",
  dragAndDropEnabled: false, dragMode: DRAG_MODE.none, viewModeHotKey: "", clipPlaneHotKey: "", cycleClipPlaneHotKey: "",
  maxDrawUndoBitmaps: 1, isForceMouseClickToVoxelCenters: true,
  mouseEventConfig: { leftButton: { primary: DRAG_MODE.crosshair }, rightButton: DRAG_MODE.none, centerButton: DRAG_MODE.pan },
});

// Many a step asks for a new picture: draw one per frame. NiiVue finds what was clicked in 3D while it draws, so that
// the crosshair's new place needs another.
const drawNow = viewer.drawScene.bind(viewer);
let drawing = 0;
viewer.drawScene = () => {
  drawing ||= requestAnimationFrame(() => {
    drawing = 0;
    const picked = viewer.uiData.mouseDepthPicker;
    drawNow();
    if (picked) viewer.drawScene();
  });
};

// At every change of the window NiiVue computes gradients for a lit 3D view, in two textures of the volume's size. Only
// the 3D view is lit: elsewhere they get one voxel per slice.
const makeTexture = viewer.rgbaTex.bind(viewer);
viewer.rgbaTex = (texture, unit, dims, ...more) => {
  const gradient = unit === viewer.gl.TEXTURE6 || unit === viewer.gl.TEXTURE8;
  return makeTexture(texture, unit, gradient && state.layout !== "render" ? [dims[0], 1, 1, dims[3]] : dims, ...more);
};

// --- showing --------------------------------------------------------------------------------------------------------

// Grey in the planes; in 3D, where alone alpha counts, what is denser than soft tissue.
function windowColours(low, high) {
  const at = (hu) => Math.min(254, Math.max(1, Math.round((255 * (hu - low)) / (high - low))));
  const from = at(180), to = Math.max(from + 1, Math.min(255, at(700)));
  const stops = [0, from, to, ...(to < 255 ? [255] : [])], grey = stops;
  return { R: grey, G: grey, B: grey, A: stops.map((stop) => (stop >= to ? 70 : 0)), I: stops };
}

function solidColours(low, high) {
  const at = (hu) => Math.round((255 * (hu - low)) / (high - low));
  return {
    I: [0, at(-150), at(120), at(220), at(500), 255], R: [120, 150, 190, 215, 240, 255], G: [85, 105, 140, 185, 225, 250],
    B: [70, 90, 115, 145, 200, 235], A: [0, 0, 1, 40, 110, 150],
  };
}

// Set the colours of "ct"; return the HU of the first and the last.
function colours() {
  const solid = state.layout === "render", [centre, width] = state.window;
  const [low, high] = solid ? SOLID : [centre - width / 2, centre + width / 2];
  cmapper.addColormap("ct", solid ? solidColours(low, high) : windowColours(low, high));
  return [low, high];
}

function paint() {
  const volume = viewer.volumes[0];
  if (!volume) return;
  [volume.cal_min, volume.cal_max] = colours();
  viewer.setVolumeRenderIllumination(state.layout === "render" ? 0.5 : 0); // makes the textures anew
}

function paintMasks() {
  const { prediction, reference } = state, visible = prediction || reference;
  const shown = { [REFERENCE]: reference && COLOURS[REFERENCE], [PREDICTION]: prediction && COLOURS[PREDICTION] };
  shown[BOTH] = prediction && reference ? COLOURS[BOTH] : shown[PREDICTION] || shown[REFERENCE];
  const colours = [0, 1, 2, 3].map((label) => (shown[label] ? [...shown[label], 255] : [0, 0, 0, 0]));
  const channel = (n) => colours.map((colour) => colour[n]);
  viewer.drawLut = cmapper.makeDrawLut({ R: channel(0), G: channel(1), B: channel(2), A: channel(3), labels: ["", "", "", ""] });
  viewer.drawOpacity = visible ? byId("opacity").value / 100 : 0;
  viewer.refreshColormaps();
  viewer.drawScene();
}

function setWindow(centre, width, redraw = true) {
  state.window = [Math.round(centre), Math.max(1, Math.round(width))];
  byId("centre").value = state.window[0];
  byId("width").value = state.window[1];
  press("[data-window]", (button) => String(WINDOWS[button.dataset.window]) === String(state.window));
  if (redraw && state.layout !== "render") paint();
}

function setLayout(layout) {
  const repaint = (state.layout === "render") !== (layout === "render");
  state.layout = layout;
  press("[data-layout]", (button) => button.dataset.layout === layout);
  viewer.opts.sliceType = LAYOUTS[layout];
  repaint ? paint() : viewer.drawScene();
  followSlice();
}

function setMask(name, visible = !state[name]) {
  if (byId("masks").querySelector(`[data-mask=${name}]`).disabled) return;
  state[name] = visible;
  press("[data-mask]", (button) => state[button.dataset.mask] && !button.disabled);
  paintMasks();
}

function press(selector, test) {
  for (const button of document.querySelectorAll(selector)) button.setAttribute("aria-pressed", test(button));
}

// --- places ---------------------------------------------------------------------------------------------------------

const plane = () => PLANES[state.layout] ?? 2;
const voxel = () => viewer.frac2vox(viewer.scene.crosshairPos).map(Math.round);

// Index (slice, row, column) in the scan of a voxel of the viewer.
function scanned(at) {
  return state.entry.axes.map(([axis, flipped], n) => (flipped ? state.entry.shape[n] - 1 - at[axis] : at[axis]));
}

function go(at, centre = false) {
  viewer.scene.crosshairPos = viewer.vox2frac(at);
  const zoom = viewer.scene.pan2Dxyzmm[3];
  if (centre && zoom !== 1) {
    const middle = viewer.frac2mm([0.5, 0.5, 0.5]), mm = viewer.frac2mm(viewer.scene.crosshairPos);
    viewer.scene.pan2Dxyzmm = [0, 1, 2].map((n) => middle[n] - zoom * mm[n]).concat(zoom);
  }
  viewer.createOnLocationChange();
  viewer.drawScene();
}

function scroll(steps) {
  const move = [0, 0, 0];
  move[plane()] = steps;
  viewer.moveCrosshairInVox(...move);
}

function zoom(factor) {
  const pan = viewer.scene.pan2Dxyzmm, next = factor ? Math.min(12, Math.max(1, pan[3] * factor)) : 1;
  const mm = viewer.frac2mm(viewer.scene.crosshairPos);
  viewer.scene.pan2Dxyzmm = next === 1 ? [0, 0, 0, 1] : [0, 1, 2].map((n) => pan[n] + (pan[3] - next) * mm[n]).concat(next);
  thinCrosshair();
}

// Lines of the same thickness on the screen, whatever the zoom.
function thinCrosshair() {
  const { dimsRAS, pixDimsRAS } = viewer.volumes[0], across_mm = Math.max(...[1, 2, 3].map((n) => dimsRAS[n] * pixDimsRAS[n]));
  const width_mm = (0.0022 * across_mm) / viewer.scene.pan2Dxyzmm[3];
  viewer.setCrosshairWidth(width_mm);
}

function followSlice() {
  if (!state.entry || !viewer.volumes.length) return;
  const axis = plane(), slider = byId("slice");
  slider.max = viewer.volumes[0].dimsRAS[axis + 1] - 1;
  slider.value = voxel()[axis];
  byId("slice-name").textContent = ["Sagittal", "Coronal", "Axial"][axis];
}

function tell(location) {
  if (!state.entry || !viewer.volumes.length) return;
  const at = voxel(), [slice, row, column] = scanned(at), [x, y, z] = viewer.frac2mm(viewer.scene.crosshairPos);
  const side = (mm, sides) => `${sides[mm < 0 ? 0 : 1]} ${Math.abs(mm).toFixed(1)}`;
  const hu = Math.round(location.values[0].value);
  byId("place").value = `slice ${slice} of 0–${state.entry.shape[0] - 1}, row ${row}, column ${column} · ${hu} HU · ` +
    `${side(x, "LR")} ${side(y, "PA")} ${side(z, "IS")} mm`;
  followSlice();
}

// --- nodules --------------------------------------------------------------------------------------------------------

function list() {
  const { nodules } = state.entry, rows = nodules.map((nodule, n) => {
    const [colour, words] = STATUS[nodule.status], row = document.createElement("li"), button = document.createElement("button");
    const part = (name, text) => { const found = document.createElement("span"); found.className = name; found.textContent = text; return found; };
    const measured = nodule.volume_mm3 === undefined ? "" : `${nodule.longest_diameter_mm.toFixed(1)} mm`;
    const facts = [`slice ${nodule.slice}`, measured && `${nodule.volume_mm3.toFixed(nodule.volume_mm3 < 100 ? 1 : 0)} mm³`, measured && `${nodule.mean_hu} HU`, nodule.score == null ? "" : `score ${nodule.score.toFixed(2)}`];
    button.type = "button";
    button.dataset.key = nodule.key;
    button.append(part(`swatch ${colour}`, ""), part("", `${nodule.status === "missed" || nodule.status === "place" ? "" : `${nodule.key} · `}${words}`), part("size", measured), part("more", facts.filter(Boolean).join(" · ")));
    button.addEventListener("click", () => { choose(n); byId("gl").scrollIntoView({ block: "nearest" }); }); // on a phone they are apart
    row.append(button);
    return row;
  });
  byId("nodules").replaceChildren(...rows);
  byId("list-title").textContent = nodules.length === 1 ? "1 nodule" : `${nodules.length || "No"} nodules`;
  byId("previous").disabled = byId("next").disabled = !nodules.length;
}

function choose(number) {
  if (!state.entry) return;
  const { nodules, id } = state.entry;
  if (!nodules.length) return;
  state.nodule = (number + nodules.length) % nodules.length;
  const nodule = nodules[state.nodule], rows = byId("nodules");
  for (const button of rows.querySelectorAll("button")) {
    button.setAttribute("aria-current", button.dataset.key === nodule.key);
    if (button.dataset.key === nodule.key && rows.scrollHeight > rows.clientHeight) button.scrollIntoView({ block: "nearest" });
  }
  history.replaceState(null, "", `#series=${id}&nodule=${nodule.key}`);
  go(nodule.at, true);
}

// --- series ---------------------------------------------------------------------------------------------------------

async function show(entry) {
  const turn = ++state.loading, began = performance.now();
  const wait = (text, share) => { byId("wait").hidden = !text; byId("wait-text").textContent = text; byId("progress").value = share; };
  delete document.body.dataset.series;
  byId("trouble").hidden = true;
  state.entry = null;
  wait("Reading the file …", 0);
  for (const volume of [...viewer.volumes]) viewer.removeVolume(volume);
  viewer.drawBitmap = null;
  try {
    const { file, labels } = await unpack(await script(entry.id), (share) => wait("Unpacking …", share));
    if (turn !== state.loading) return false;
    wait("Drawing …", 1);
    await new Promise((resolve) => setTimeout(resolve));
    const volume = await NVImage.new(file, `${entry.id}.nii`, "ct", 1, null, ...colours());
    state.entry = entry;
    viewer.scene.pan2Dxyzmm = [0, 0, 0, 1];
    viewer.addVolume(volume);
    viewer.loadDrawing({ hdr: volume.hdr, img: labels, permRAS: volume.permRAS }); // labels in the order of the voxels
    viewer.drawClearAllUndoBitmaps();
    begin(entry);
  } catch (error) {
    if (turn === state.loading) { wait("", 0); complain(error.message); }
    return false;
  }
  wait("", 0);
  document.body.dataset.milliseconds = Math.round(performance.now() - began);
  document.body.dataset.series = entry.id;
  return true;
}

function begin(entry) {
  byId("series").value = entry.id;
  const [slices, rows, columns] = entry.shape, mm = entry.spacing_mm.map((one) => Number(one.toFixed(2)));
  byId("facts").textContent = `${SERIES.series.length > 1 ? "" : `${entry.id} · `}${columns} × ${rows} × ${slices} voxels of ${mm[2]} × ${mm[1]} × ${mm[0]} mm`;
  const reference = byId("masks").querySelector("[data-mask=reference]");
  reference.disabled = byId("both").hidden = !entry.compared;
  reference.title = entry.compared ? "Ground truth (G)" : "No ground truth was given for this series";
  press("[data-mask]", (button) => state[button.dataset.mask] && !button.disabled);
  state.nodule = -1;
  list();
  paintMasks();
  go(viewer.volumes[0].dimsRAS.slice(1, 4).map((count) => Math.floor(count / 2)));
  thinCrosshair();
  followSlice();
}

function complain(text) {
  byId("trouble").textContent = text;
  byId("trouble").hidden = false;
}

// #series=<id>&nodule=<key> or &slice=<index>; without a series the first, without a nodule the first of its list.
async function follow() {
  const asked = new URLSearchParams(location.hash.slice(1)), id = asked.get("series");
  const entry = id ? SERIES.series.find((one) => one.id === id) : SERIES.series[0];
  if (!entry) return complain(id ? missing(id) : "No series is in this folder.");
  if (state.entry !== entry && !(await show(entry))) return;
  const slice = asked.get("slice");
  if (slice !== null) return goSlice(Number(slice));
  const number = entry.nodules.findIndex((nodule) => nodule.key === asked.get("nodule"));
  choose(Math.max(0, number));
}

function missing(id) {
  return SERIES.left_out.includes(id) ? `Series ${id} was left out: the folder would be over ${SERIES.most_mb} MB.` : `Series ${id} is not in this folder.`;
}

function goSlice(index) {
  const [axis, flipped] = state.entry.axes[0], at = voxel();
  at[axis] = flipped ? state.entry.shape[0] - 1 - index : index;
  go(at);
}

// --- controls -------------------------------------------------------------------------------------------------------

const KEYS = {
  ArrowUp: () => scroll(1), ArrowDown: () => scroll(-1), PageUp: () => scroll(10), PageDown: () => scroll(-10),
  n: () => choose(state.nodule + 1), p: () => choose(state.nodule - 1),
  1: () => setWindow(...WINDOWS.lung), 2: () => setWindow(...WINDOWS.mediastinum), 3: () => setWindow(...WINDOWS.bone),
  r: () => setMask("prediction"), g: () => setMask("reference"),
  m: () => setLayout("planes"), a: () => setLayout("axial"), c: () => setLayout("coronal"), s: () => setLayout("sagittal"), v: () => setLayout("render"),
  "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8), 0: () => zoom(0), "?": () => byId("help").showModal(),
};

function onKey(event) {
  if (byId("help").open || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("select, input[type=number]") || (event.target.matches("input") && event.key.length > 1)) return;
  const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (event.target === byId("gl") && event.key !== "Tab") event.stopPropagation(); // NiiVue has keys of its own
  if (!act || (!state.entry && event.key !== "?")) return;
  event.preventDefault();
  act();
}

// Right button: across for the width, down for a higher centre; one picture per frame.
function dragWindow(down) {
  if (down.button !== 2) return;
  down.stopImmediatePropagation();
  const [centre, width] = state.window, stop = new AbortController();
  let last = down, frame = 0;
  const change = () => { frame = 0; setWindow(centre + 2 * (last.clientY - down.clientY), width + 2 * (last.clientX - down.clientX)); };
  addEventListener("mousemove", (move) => { last = move; frame ||= requestAnimationFrame(change); }, stop);
  addEventListener("mouseup", (up) => up.button === 2 && stop.abort(), stop);
}

// A pinch on a touchpad comes as a turn of the wheel with Control.
function zoomByWheel(turn) {
  if (!turn.ctrlKey || !state.entry) return;
  turn.preventDefault();
  turn.stopImmediatePropagation();
  zoom(turn.deltaY < 0 ? 1.1 : 1 / 1.1);
}

function connect() {
  const clicked = (selector, act) => { for (const one of document.querySelectorAll(selector)) one.addEventListener("click", () => act(one.dataset)); };
  clicked("[data-layout]", ({ layout }) => setLayout(layout));
  clicked("[data-window]", ({ window: name }) => setWindow(...WINDOWS[name]));
  clicked("[data-mask]", ({ mask }) => setMask(mask));
  clicked("#previous", () => choose(state.nodule - 1));
  clicked("#next", () => choose(state.nodule + 1));
  clicked("#help-open", () => byId("help").showModal());
  for (const id of ["centre", "width"]) {
    byId(id).addEventListener("change", () => setWindow(Number(byId("centre").value), Number(byId("width").value)));
  }
  byId("opacity").addEventListener("input", paintMasks);
  byId("slice").addEventListener("input", () => { if (!state.entry) return; const at = voxel(); at[plane()] = Number(byId("slice").value); go(at); });
  byId("series").addEventListener("change", () => { location.hash = `#series=${byId("series").value}`; });
  addEventListener("hashchange", follow);
  addEventListener("keydown", onKey, true);
  byId("gl").parentElement.addEventListener("dblclick", (event) => event.stopPropagation(), true); // would reset the window
  viewer.onLocationChange = tell;
}

// Beside the planes, 3D is drawn anew with every slice: not where a processor stands in for the graphics card.
function setTile() {
  const about = viewer.gl.getExtension("WEBGL_debug_renderer_info");
  const name = about ? viewer.gl.getParameter(about.UNMASKED_RENDERER_WEBGL) : "";
  const slow = /swiftshader|llvmpipe|softpipe|basic render/i.test(name);
  viewer.opts.multiplanarShowRender = slow ? SHOW_RENDER.NEVER : SHOW_RENDER.ALWAYS;
  viewer.opts.multiplanarLayout = slow ? MULTIPLANAR_TYPE.AUTO : MULTIPLANAR_TYPE.GRID;
}

async function start() {
  byId("notice").textContent = SERIES.notice;
  byId("series").replaceChildren(...SERIES.series.map((entry) => new Option(`${entry.id}`, entry.id)));
  byId("series").closest("label").hidden = SERIES.series.length < 2;
  if (SERIES.left_out.length) {
    byId("left-out").textContent = `Left out, because the folder would be over ${SERIES.most_mb} MB: ${SERIES.left_out.join(", ")}`;
    byId("left-out").hidden = false;
  }
  setWindow(...state.window, false);
  press("[data-layout]", (button) => button.dataset.layout === state.layout);
  if (!document.createElement("canvas").getContext("webgl2")) return complain("This browser draws no WebGL 2, which the viewer needs.");
  byId("gl").addEventListener("mousedown", dragWindow); // before NiiVue listens
  byId("gl").addEventListener("wheel", zoomByWheel);
  await viewer.attachTo("gl");
  const { gl } = viewer, lit = viewer.renderGradientShader.program; // NiiVue 0.69 forgets the masks in this shader
  gl.useProgram(lit);
  gl.uniform1i(gl.getUniformLocation(lit, "drawing"), 7);
  viewer.setRenderAzimuthElevation(200, 10); // from the front
  viewer.setScale(1.2);
  setTile();
  viewer.opts.sliceType = LAYOUTS[state.layout];
  connect();
  await follow();
}

globalThis.viewer = viewer;
start();
