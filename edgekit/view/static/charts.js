// A line chart on a canvas: enough for five of them, and nothing from elsewhere.

const COLOURS = ["#2f81f7", "#e8590c", "#2b8a3e", "#ae3ec9", "#c2255c", "#0c8599"];

export const colour = (index) => COLOURS[index % COLOURS.length];

// Draw `series`, lists of numbers or null of one length, a second each, oldest first.
export function draw(canvas, series, { floor = 0, ceiling = null } = {}) {
  const seconds = Math.max(60, ...series.map((line) => line.length));
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (!width || !height) return;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  const style = getComputedStyle(document.documentElement);
  const values = series.flat().filter((value) => value !== null);
  const top = ceiling ?? nice(Math.max(floor + 1e-9, ...values));
  const left = 44, bottom = height - 6, upper = 8;
  const y = (value) => bottom - ((value - floor) / (top - floor)) * (bottom - upper);
  const x = (index) => width - 4 - (seconds - 1 - index) * ((width - left - 4) / (seconds - 1));

  pen.font = "12px system-ui, sans-serif";
  pen.fillStyle = style.getPropertyValue("--soft");
  pen.strokeStyle = style.getPropertyValue("--line");
  pen.lineWidth = 1;
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  for (const value of [floor, (floor + top) / 2, top]) {
    pen.beginPath();
    pen.moveTo(left, y(value));
    pen.lineTo(width, y(value));
    pen.stroke();
    pen.fillText(label(value), left - 6, y(value));
  }
  pen.lineWidth = 1.5;
  series.forEach((line, which) => {
    pen.strokeStyle = colour(which);
    pen.beginPath();
    let down = false;
    line.forEach((value, index) => {
      if (value === null || value === undefined) { down = false; return; }
      const at = [x(index + seconds - line.length), y(Math.min(value, top))];
      if (down) pen.lineTo(...at); else pen.moveTo(...at);
      down = true;
    });
    pen.stroke();
  });
}

function nice(value) {
  const size = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * size).find((step) => step >= value) ?? value;
}

function label(value) {
  return Math.abs(value) >= 10000 ? value.toExponential(0) : String(Number(value.toPrecision(3)));
}
