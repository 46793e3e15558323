'use strict';
// Charts of a few lines over time, as SVG. What is told is only ever set as text.
function make(name, properties, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties || {})) {
    if (key in element && key !== 'role') element[key] = value; else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}
function svg(name, attributes, text) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

// The least round number that is no less: 1, 2 or 5 of a power of ten, of long times in minutes; of bytes a power of two.
function roundUp(value, kind) {
  if (kind === 'time' && value > 50e3) return roundUp(value / 60e3) * 60e3;
  if (kind === 'bytes') return Math.max(1024, 2 ** Math.ceil(Math.log2(Math.max(value, 1))));
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1e-9)));
  return [1, 2, 5, 10].map(step => step * power).find(step => step >= value * 0.999);
}

class Chart {
  constructor(title, format, names, kind) {
    Object.assign(this, { title, format, names, kind, at: [], lines: [], picked: null });
    this.legend = make('div', { className: 'legend' });
    this.picture = svg('svg', { role: 'img', tabindex: '0' });
    this.element = make('figure', { className: 'card chart' },
      make('figcaption', {}, make('h3', { textContent: title }), this.legend), this.picture);
    const pick = event => {
      const box = this.picture.getBoundingClientRect();
      const share = (event.clientX - box.left - this.left) / (box.width - this.left - 6);
      this.pick(this.at.length ? this.nearest(this.from + share * (this.to - this.from)) : null);
    };
    this.picture.addEventListener('pointermove', pick);
    this.picture.addEventListener('pointerdown', pick);
    this.picture.addEventListener('pointerleave', () => this.pick(null));
    this.picture.addEventListener('blur', () => this.pick(null));
    this.picture.addEventListener('keydown', event => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step || !this.at.length) return;
      event.preventDefault();
      const last = this.at.length - 1;
      this.pick(Math.min(last, Math.max(0, (this.picked ?? last) + step)));
    });
    new ResizeObserver(() => this.draw()).observe(this.picture);
  }
  nearest(time) {
    return this.at.reduce((best, at, index) => Math.abs(at - time) < Math.abs(this.at[best] - time) ? index : best, 0);
  }
  pick(index) {
    this.picked = index;
    this.draw();
  }
  set(at, lines, now) {
    // What is picked moves with the samples.
    const time = this.picked === null ? null : this.at[this.picked];
    Object.assign(this, { at, lines, to: now, from: now - 15 * 60e3 });
    this.picked = time === null || !at.length ? null : this.nearest(time);
    this.draw();
  }
  draw() {
    const width = this.picture.clientWidth, height = this.picture.clientHeight;
    // Nothing is told yet, or nothing is seen.
    if (!width || !height || this.to === undefined) return;
    const values = this.lines.flat().filter(value => value !== null);
    const top = roundUp(Math.max(0, ...values) || 1, this.kind);
    const ticks = [0, top / 2, top], bottom = height - 18;
    this.left = 12 + 6.3 * Math.max(...ticks.map(tick => this.format(tick).length));
    const x = time => this.left + (time - this.from) / (this.to - this.from) * (width - this.left - 6);
    const y = value => 8 + (1 - value / top) * (bottom - 8);
    const parts = ticks.flatMap(tick => [
      svg('line', { class: 'grid', x1: this.left, x2: width - 6, y1: y(tick), y2: y(tick) }),
      svg('text', { x: this.left - 6, y: y(tick) + 4, 'text-anchor': 'end' }, this.format(tick))]);
    for (const minutes of [15, 10, 5, 0]) {
      const anchor = { 15: 'start', 0: 'end' }[minutes] || 'middle';
      parts.push(svg('text', { x: x(this.to - minutes * 60e3), y: height - 3, 'text-anchor': anchor }, minutes ? `−${minutes} min` : 'now'));
    }
    this.lines.forEach((line, number) => {
      for (const run of this.runs(line)) {
        const points = run.map(index => `${x(this.at[index]).toFixed(1)},${y(line[index]).toFixed(1)}`);
        if (number === 0 && this.lines.length === 1) {
          parts.push(svg('path', { class: 'area', d: `M${x(this.at[run[0]]).toFixed(1)},${bottom}L${points.join('L')}L${x(this.at[run.at(-1)]).toFixed(1)},${bottom}Z` }));
        }
        parts.push(svg('path', { class: `series${number}`, d: `M${points.join('L')}${run.length > 1 ? '' : 'h.01'}` }));
      }
    });
    if (this.picked !== null) {
      const at = x(this.at[this.picked]);
      parts.push(svg('line', { class: 'cross', x1: at, x2: at, y1: 4, y2: bottom }));
      this.lines.forEach((line, number) => {
        if (line[this.picked] !== null) parts.push(svg('circle', { class: `dot series${number}`, cx: at, cy: y(line[this.picked]), r: 4.5 }));
      });
    }
    this.picture.replaceChildren(...parts);
    this.tell();
  }
  // Where nothing was measured for half a minute, the line is broken; a heartbeat commits every ten seconds.
  runs(line) {
    const runs = [];
    let before = -Infinity;
    line.forEach((value, index) => {
      if (value === null) return;
      if (this.at[index] - before > 30e3) runs.push([]);
      runs.at(-1).push(index);
      before = this.at[index];
    });
    return runs;
  }
  tell() {
    const last = line => line.findLast(value => value !== null) ?? null;
    const shown = line => this.picked === null ? last(line) : line[this.picked];
    const say = value => value === null ? '–' : this.format(value);
    const when = this.picked === null ? '' : `${new Date(this.at[this.picked]).toLocaleTimeString()} `;
    this.legend.replaceChildren(...(when ? [make('span', { textContent: when })] : []), ...this.lines.map((line, number) => {
      const swatch = svg('svg', { 'aria-hidden': 'true', viewBox: '0 0 18 8' });
      swatch.append(svg('line', { class: `series${number}`, x1: 1, x2: 17, y1: 4, y2: 4 }));
      return make('span', {}, ...(this.lines.length > 1 ? [swatch] : []), `${this.names[number]} ${say(shown(line))}`.trim());
    }));
    const said = this.lines.map((line, number) => {
      const most = Math.max(...line.filter(value => value !== null));
      return `${this.names[number]} ${say(shown(line))}${when ? '' : Number.isFinite(most) ? ` now, at most ${this.format(most)}` : ''}`.trim();
    });
    this.picture.setAttribute('aria-label', `${this.title}, the last 15 minutes: ${when}${said.join('; ')}`);
  }
}
