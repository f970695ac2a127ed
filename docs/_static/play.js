"use strict";
// The page play.md. RULES, PROBLEMS and RATES are in play-rules.js.

const LEAST = 1e-30, MOST = 1e300; // values beyond are drawn as these

/** The points of a run, the start first; it ends before one that is not finite. */
function trajectory(rule, problem, hyper, steps, start) {
  const r = RULES[rule], p = PROBLEMS[problem], h = defaults(rule, problem);
  Object.assign(h, hyper);
  const path = [start ?? p.start];
  let s = r.init(path[0], h);
  for (let t = 1; t <= steps; t++) {
    const value = p.value(s[0], s[1]), gradient = p.gradient(s[0], s[1]);
    s = r.step(s, gradient, t, h, value);
    const point = r.at(s, t, h);
    if (!point.every(Number.isFinite)) break;
    path.push(point);
  }
  return path;
}

/** A rule's numbers as they are at first: its defaults, and the rate that suits the problem. */
function defaults(rule, problem) {
  const h = {};
  for (const [name, { default: value }] of Object.entries(RULES[rule].hyper)) h[name] = value;
  if ("lr" in h) h.lr = RATES[rule][problem];
  return h;
}

/** Whether a number is one that the hyperparameter may have. */
function legal(value, { low, high, closed }) {
  return Number.isFinite(value) &&
    (low === null || (closed[0] ? value >= low : value > low)) &&
    (high === null || (closed[1] ? value <= high : value < high));
}

/** From a number to a slider's place between 0 and 1, and back. */
function scale(value, { low, high }) {
  if (low === 0 && high === 1) { // as near to 1 as one likes
    return { to: (v) => v >= 1 ? 1 : -Math.log10(1 - v) / 5, from: (x) => +(1 - 10 ** (-5 * x)).toPrecision(6) };
  }
  if (low === 0) { // three decimal powers up and down
    const middle = Math.log10(value || 1e-2);
    return { to: (v) => v <= 0 ? 0 : (Math.log10(v) - middle + 3) / 6, from: (x) => +(10 ** (middle - 3 + 6 * x)).toPrecision(3) };
  }
  const width = 2 * (Math.abs(value) || 1);
  return { to: (v) => (v - value) / width / 2 + 0.5, from: (x) => +(value + (x - 0.5) * 2 * width).toPrecision(4) };
}

function page(root) {
  const form = root.querySelector("form"), get = (name) => root.querySelector(`[name="${name}"]`);
  const ground = root.querySelector(".play-ground"), values = root.querySelector(".play-values");
  const numbers = root.querySelector(".play-numbers"), told = root.querySelector(".play-told");
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  let hyper = {}, path = [], broken = false, shown = 0, timer = 0, later = 0, kept = [], back = null;

  for (const name of Object.keys(RULES)) get("rule").add(new Option(name, name));
  for (const name of Object.keys(PROBLEMS)) get("problem").add(new Option(name, name));

  /** A field and a slider for each number of the rule. */
  function fields() {
    numbers.replaceChildren();
    for (const [name, about] of Object.entries(RULES[get("rule").value].hyper)) {
      const label = document.createElement("label"), field = document.createElement("input");
      const slider = document.createElement("input");
      const { to, from } = scale(name === "lr" ? hyper.lr : about.default, about);
      label.append(`${name} `, field, slider);
      label.title = `${name} in ${about.legal}`;
      Object.assign(field, { type: "number", step: "any", name: `h.${name}`, value: hyper[name] });
      Object.assign(slider, { type: "range", min: 0, max: 1, step: 0.005, value: to(hyper[name]) });
      slider.setAttribute("aria-label", `${name}, slider`);
      field.addEventListener("input", () => {
        const value = field.value === "" ? NaN : Number(field.value), fine = legal(value, about);
        field.setCustomValidity(fine ? "" : `${name} must be in ${about.legal}`);
        if (fine) {
          hyper[name] = value;
          slider.value = to(value);
        }
        run();
      });
      slider.addEventListener("input", () => {
        const value = from(Number(slider.value));
        if (!legal(value, about)) return;
        field.setCustomValidity("");
        field.value = hyper[name] = value;
        run();
      });
      numbers.append(label);
    }
  }

  function choose({ reset = true } = {}) {
    const [rule, wrapper] = get("rule").value.split("+");
    root.querySelector(".play-about").href = wrapper ? `wrappers/${wrapper}.html` : `rules/${rule}.html`;
    root.querySelector(".play-about").textContent = RULES[get("rule").value].title;
    if (reset) hyper = defaults(get("rule").value, get("problem").value);
    fields();
    run();
  }

  /** Run anew, unless a field says what cannot be: then all stays as it is, and that is told. */
  function run() {
    stop();
    const wrong = [...form.elements].find((field) => field.validity && !field.validity.valid);
    if (wrong) { told.textContent = wrong.validity.customError ? wrong.validationMessage : rangeOf(wrong); return; }
    const start = [Number(get("x").value), Number(get("y").value)], steps = Number(get("steps").value);
    path = trajectory(get("rule").value, get("problem").value, hyper, steps, start);
    broken = path.length <= steps;
    get("time").max = path.length - 1;
    show(path.length - 1);
    clearTimeout(later); // browsers limit how often an address may change
    later = setTimeout(() => remember(steps, start), 300);
  }

  const rangeOf = (field) => field.name === "steps"
    ? `Steps must be a whole number from ${field.min} to ${field.max}` : `Start ${field.name} must be a number`;

  /** What is chosen, in the address: only what is not as it is at first. */
  function remember(steps, start) {
    const rule = get("rule").value, problem = get("problem").value, usual = defaults(rule, problem);
    const told = new URLSearchParams({ rule, problem, steps, x: start[0], y: start[1] });
    for (const k in usual) if (hyper[k] !== usual[k]) told.set(`h.${k}`, hyper[k]);
    history.replaceState(null, "", `#${told}`);
  }

  function recall() {
    const told = new URLSearchParams(location.hash.slice(1));
    const rule = Object.hasOwn(RULES, told.get("rule")) ? told.get("rule") : "adam";
    const problem = Object.hasOwn(PROBLEMS, told.get("problem")) ? told.get("problem") : "rosenbrock";
    get("rule").value = rule;
    get("problem").value = problem;
    const number = (k, usual) => told.has(k) && Number.isFinite(Number(told.get(k))) ? Number(told.get(k)) : usual;
    get("steps").value = Math.min(get("steps").max, Math.max(1, Math.round(number("steps", 200))));
    get("x").value = number("x", PROBLEMS[problem].start[0]);
    get("y").value = number("y", PROBLEMS[problem].start[1]);
    hyper = defaults(rule, problem);
    for (const [k, about] of Object.entries(RULES[rule].hyper)) {
      const value = number(`h.${k}`, hyper[k]);
      if (legal(value, about)) hyper[k] = value;
    }
    choose({ reset: false });
  }

  function show(step) {
    shown = Math.max(0, Math.min(path.length - 1, step));
    get("time").value = shown;
    const [x, y] = path[shown], problem = PROBLEMS[get("problem").value];
    const ended = broken && shown === path.length - 1;
    told.textContent = `Step ${shown}: x = ${x.toPrecision(6)}, y = ${y.toPrecision(6)}, ` +
      `value ${problem.value(x, y).toPrecision(4)}` + (ended ? ". The next step is not finite." : "");
    draw();
  }

  function stop() {
    clearInterval(timer);
    timer = 0;
    told.ariaLive = "polite";
    get("play").textContent = "Play";
  }

  function play() {
    if (timer) { stop(); return; }
    if (shown === path.length - 1) show(0);
    get("play").textContent = "Stop";
    told.ariaLive = "off"; // or it would be read aloud at each step
    const each = Math.max(1, Math.round(path.length / 300)); // five seconds at most
    timer = setInterval(() => {
      show(shown + each);
      if (shown === path.length - 1) { stop(); show(shown); }
    }, still.matches ? 200 : 16);
  }

  const color = (name) => getComputedStyle(document.body).getPropertyValue(name).trim();
  const dark = () => document.body.dataset.theme === "dark" ||
    (document.body.dataset.theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  const COLORS = () => dark()
    ? ["#ffb347", "#6fd3ff", "#9be28a", "#ff8fa3", "#d7b3ff", "#f4e285", "#58e0c0", "#c9c9c9", "#ff9d5c"]
    : ["#b34700", "#00639c", "#27701a", "#a3123a", "#5b2a9d", "#7a6400", "#006b5b", "#555555", "#8a3b00"];

  function sized(canvas) {
    const ratio = devicePixelRatio || 1, box = canvas.getBoundingClientRect();
    const width = Math.max(1, Math.round(box.width * ratio)), height = Math.max(1, Math.round(box.height * ratio));
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    return [canvas.getContext("2d"), width, height, ratio];
  }

  /** The problem's values in bands, equal steps of their logarithm. */
  function contours(width, height) {
    const key = [get("problem").value, width, height, dark()].join();
    if (back?.key === key) return back.image;
    const { value, box: [[left, right], [low, high]] } = PROBLEMS[get("problem").value];
    const image = new ImageData(width, height), [a, b] = dark() ? [[18, 24, 38], [64, 84, 120]] : [[140, 172, 212], [247, 249, 252]];
    const z = new Float64Array(width * height);
    let least = Infinity, most = -Infinity;
    for (let j = 0; j < height; j++) for (let i = 0; i < width; i++) {
      const v = Math.log(1e-2 + value(left + (right - left) * (i + 0.5) / width, high - (high - low) * (j + 0.5) / height));
      z[j * width + i] = v;
      least = Math.min(least, v);
      most = Math.max(most, v);
    }
    for (let k = 0; k < z.length; k++) {
      const band = Math.floor(14.999 * (z[k] - least) / (most - least)) / 14;
      for (let c = 0; c < 3; c++) image.data[4 * k + c] = a[c] + (b[c] - a[c]) * band;
      image.data[4 * k + 3] = 255;
    }
    back = { key, image };
    return image;
  }

  function draw() {
    const [g, width, height, ratio] = sized(ground), problem = PROBLEMS[get("problem").value];
    const [[left, right], [low, high]] = problem.box, colors = COLORS();
    const at = ([x, y]) => [(x - left) / (right - left) * width, (high - y) / (high - low) * height];
    g.putImageData(contours(width, height), 0, 0);
    const line = (points, tint, dots) => {
      g.strokeStyle = g.fillStyle = tint;
      g.lineWidth = 1.6 * ratio;
      g.beginPath();
      points.forEach((p, i) => (i ? g.lineTo(...at(p)) : g.moveTo(...at(p))));
      g.stroke();
      if (dots) for (const p of points) { g.beginPath(); g.arc(...at(p), 2 * ratio, 0, 7); g.fill(); }
    };
    const here = kept.filter((k) => k.problem === get("problem").value);
    here.forEach((k) => line(k.path, colors[k.color], false));
    line(path.slice(0, shown + 1), colors[0], true);
    const mark = (point, text, size) => {
      g.font = `${size * ratio}px sans-serif`;
      g.textAlign = "center";
      g.textBaseline = "middle";
      g.fillStyle = dark() ? "#fff" : "#111";
      g.fillText(text, ...at(point));
    };
    mark(problem.minimum, "★", 16);
    mark(path[0], "○", 14);
    mark(path[shown], "●", 14);
    g.font = `${11 * ratio}px sans-serif`;
    g.fillStyle = dark() ? "#dde3ee" : "#333";
    for (const part of [0.25, 0.5, 0.75]) {
      g.textAlign = "center";
      g.fillText((left + (right - left) * part).toFixed(2), part * width, height - 9 * ratio);
      g.textAlign = "left";
      g.fillText((high - (high - low) * part).toFixed(2), 4 * ratio, part * height);
    }
    curves(here, colors);
  }

  /** The values at each step, by their logarithms. */
  function curves(here, colors) {
    const [g, width, height, ratio] = sized(values), value = PROBLEMS[get("problem").value].value;
    const all = [...here.map((k) => [k.path, colors[k.color]]), [path, colors[0]]];
    const logs = all.map(([p, tint]) => [p.map(([x, y]) => Math.log10(Math.min(MOST, Math.max(LEAST, value(x, y))))), tint]);
    const low = Math.min(...logs.map(([z]) => Math.min(...z))), high = Math.max(...logs.map(([z]) => Math.max(...z)));
    const longest = Math.max(...logs.map(([z]) => z.length - 1), 1), edge = 46 * ratio, foot = 18 * ratio;
    const at = (i, z) => [edge + (width - edge - 4) * i / longest, 4 + (height - foot - 8) * (high - z) / (high - low || 1)];
    g.clearRect(0, 0, width, height);
    g.fillStyle = color("--color-foreground-primary");
    g.font = `${11 * ratio}px sans-serif`;
    g.textAlign = "right";
    g.textBaseline = "middle";
    for (const z of [low, (low + high) / 2, high]) g.fillText((10 ** z).toExponential(0), edge - 5 * ratio, Math.min(height - foot, Math.max(7 * ratio, at(0, z)[1])));
    g.textAlign = "center";
    for (const i of [0, Math.round(longest / 2), longest]) g.fillText(i, Math.min(width - 14 * ratio, at(i, low)[0]), height - foot / 2);
    for (const [z, tint] of logs) {
      g.strokeStyle = tint;
      g.lineWidth = 1.6 * ratio;
      g.beginPath();
      z.forEach((v, i) => (i ? g.lineTo(...at(i, v)) : g.moveTo(...at(i, v))));
      g.stroke();
    }
    const [x] = at(shown, low);
    g.strokeStyle = color("--color-foreground-muted");
    g.lineWidth = ratio;
    g.beginPath();
    g.moveTo(x, 0);
    g.lineTo(x, height - foot);
    g.stroke();
  }

  function keep() {
    const rule = get("rule").value, problem = get("problem").value, usual = defaults(rule, problem);
    const other = Object.keys(hyper).filter((k) => k === "lr" || hyper[k] !== usual[k]).map((k) => `${k} = ${hyper[k]}`);
    kept.push({ rule, problem, path, other: other.join(", "), color: 1 + kept.length % 8 });
    table();
    draw();
  }

  function table() {
    const body = root.querySelector("tbody");
    body.replaceChildren();
    for (const k of kept) {
      const { value, minimum } = PROBLEMS[k.problem], [x, y] = k.path.at(-1), row = body.insertRow();
      const spot = document.createElement("i");
      spot.style.background = COLORS()[k.color];
      row.insertCell().append(spot);
      const far = Math.hypot(x - minimum[0], y - minimum[1]);
      for (const text of [`${k.rule}, ${k.problem}`, k.other, k.path.length - 1, value(x, y).toPrecision(3), far.toPrecision(3)]) row.insertCell().textContent = text;
    }
    root.querySelector(".play-kept").hidden = !kept.length;
  }

  get("rule").addEventListener("change", () => choose());
  get("problem").addEventListener("change", () => {
    const problem = get("problem").value, { lr } = defaults(get("rule").value, problem);
    [get("x").value, get("y").value] = PROBLEMS[problem].start;
    if (lr !== undefined) hyper.lr = lr; // the other numbers stay
    choose({ reset: false });
  });
  for (const name of ["steps", "x", "y"]) get(name).addEventListener("input", run);
  form.addEventListener("submit", (event) => event.preventDefault());
  get("time").addEventListener("input", () => { stop(); show(Number(get("time").value)); });
  const press = {
    play, keep,
    step: () => { stop(); show(shown === path.length - 1 ? 0 : shown + 1); },
    end: () => { stop(); show(path.length - 1); },
    clear: () => { kept = []; table(); draw(); },
    defaults: () => {
      [get("x").value, get("y").value] = PROBLEMS[get("problem").value].start;
      get("steps").value = 200;
      choose();
    },
  };
  for (const [name, act] of Object.entries(press)) get(name).addEventListener("click", act);
  ground.addEventListener("keydown", (event) => {
    const to = { ArrowRight: shown + 1, ArrowLeft: shown - 1, Home: 0, End: path.length - 1 }[event.key];
    if (event.key !== " " && to === undefined) return;
    event.preventDefault();
    if (event.key === " ") play();
    else { stop(); show(to); }
  });
  ground.addEventListener("click", (event) => {
    const box = ground.getBoundingClientRect(), [[left, right], [low, high]] = PROBLEMS[get("problem").value].box;
    get("x").value = +(left + (right - left) * (event.clientX - box.left) / box.width).toPrecision(4);
    get("y").value = +(high - (high - low) * (event.clientY - box.top) / box.height).toPrecision(4);
    run();
  });
  const again = () => { table(); draw(); };
  new MutationObserver(again).observe(document.body, { attributes: true, attributeFilter: ["data-theme"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  new ResizeObserver(draw).observe(ground);
  addEventListener("hashchange", recall);
  recall();
}

if (typeof document !== "undefined") page(document.getElementById("play"));
