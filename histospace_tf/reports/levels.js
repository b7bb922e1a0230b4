"use strict";
// What the scripts of all pages share: values kept as levels, their colours, a bar of length.
const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

// Share of the scale, 0 to 1 -> a colour for the canvas.
const colourScale = (packed) => {
  const parts = bytes(packed);
  const words = Array.from({ length: 256 }, (_, i) =>
    `rgb(${parts[3 * i]},${parts[3 * i + 1]},${parts[3 * i + 2]})`);
  return (share) => words[Math.max(0, Math.min(255, Math.round(share * 255)))];
};

const drawColours = (canvas, colour) => {
  canvas.width = 256;
  canvas.height = 1;
  const pen = canvas.getContext("2d");
  for (let x = 0; x < 256; x += 1) {
    pen.fillStyle = colour(x / 255);
    pen.fillRect(x, 0, 1, 1);
  }
};

// A gene's level, 0 to `levels`, in its unit.
const atLevel = (gene, level, levels) => gene.min + (level / levels) * (gene.max - gene.min);

const percentile = (sorted, share) => {
  const place = share * (sorted.length - 1), below = Math.floor(place);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (place - below) * (sorted[above] - sorted[below]);
};

// Its box stands with the lower left corner at (left, bottom); px: pixels of the drawing a pixel of
// the page.
const drawScaleBar = (pen, left, bottom, px, length, label) => {
  const y = bottom - 8 * px;
  pen.font = `${12 * px}px sans-serif`;
  const box = Math.max(length, pen.measureText(label).width) + 12 * px;
  pen.fillStyle = "rgba(255,255,255,.85)";
  pen.fillRect(left, y - 20 * px, box, 28 * px);
  pen.fillStyle = "#000";
  pen.fillRect(left + 6 * px, y, length, 3 * px);
  pen.fillText(label, left + 6 * px, y - 5 * px);
};
