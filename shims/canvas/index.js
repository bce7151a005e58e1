'use strict';
// chartjs-node-canvas asks for the package `canvas` (Cairo, compiled at install). This stands in for it with
// @napi-rs/canvas, whose prebuilt binary needs nothing from the system, and adds the two methods that its SVG canvas lacks.
const compat = require('@napi-rs/canvas/node-canvas.js');

function withSvgOutput(canvas) {
  canvas.toBuffer = (callback) => {
    const content = canvas.getContent();
    if (typeof callback !== 'function') return content;
    queueMicrotask(() => callback(null, content));
    return undefined;
  };
  canvas.toDataURL = (_mime, callback) => {
    const url = `data:image/svg+xml;base64,${canvas.getContent().toString('base64')}`;
    if (typeof callback !== 'function') return url;
    queueMicrotask(() => callback(null, url));
    return undefined;
  };
  return canvas;
}

function createCanvas(width, height, type) {
  const canvas = compat.createCanvas(width, height, type);
  return type === 'svg' ? withSvgOutput(canvas) : canvas;
}

module.exports = { ...compat, createCanvas };
