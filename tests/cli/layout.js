// What is wrong with how the page looks, in words; [] when nothing is. The window is as tall as the page.
() => {
  const wrong = [], seen = element => element.getClientRects().length > 0;
  const name = element => element.tagName + "." + (element.getAttribute("class") || "") + " '" +
    element.textContent.trim().slice(0, 40) + "'";
  const page = document.documentElement;
  if (page.scrollWidth > page.clientWidth) wrong.push(`page scrolls: ${page.scrollWidth} > ${page.clientWidth}`);

  const rgb = text => { const n = (text.match(/[\d.]+/g) || []).map(Number); return n.length === 3 ? [...n, 1] : n; };
  const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const light = color => {
    const [r, g, b] = color.map(c => c / 255).map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const color = rgb(getComputedStyle(e).backgroundColor);
      if (color[3] > 0) return over(color, [255, 255, 255, 1]);
    }
    return [255, 255, 255, 1];
  };
  const ground = (text, box) => {  // what an SVG text stands on: the rectangles under it, lowest first
    const under = document.elementsFromPoint((box.left + box.right) / 2, (box.top + box.bottom) / 2)
      .filter(e => e.tagName === "rect").reverse();
    return under.reduce((below, e) => {
      const style = getComputedStyle(e), fill = rgb(style.fill);
      return over([fill[0], fill[1], fill[2], fill[3] * Number(style.opacity)], below);
    }, behind(text.closest("svg")));
  };
  const judge = (element, color, on, size) => {
    const ratio = contrast(over(color, on), on);
    if (ratio < 4.5) wrong.push(`contrast ${ratio.toFixed(2)}: ${name(element)}`);
    if (size < 10.95) wrong.push(`${size.toFixed(1)} px: ${name(element)}`);
  };

  for (const svg of document.querySelectorAll("svg")) {
    if (!seen(svg)) continue;
    const frame = svg.getBoundingClientRect(), scale = frame.width / svg.viewBox.baseVal.width;
    const texts = [...svg.querySelectorAll("text")].filter(text => text.textContent.trim());
    const boxes = texts.map(text => text.getBoundingClientRect());
    texts.forEach((text, i) => {
      const b = boxes[i], style = getComputedStyle(text);
      if (b.left < frame.left - 1 || b.right > frame.right + 1 || b.top < frame.top - 1 || b.bottom > frame.bottom + 1)
        wrong.push(`outside its picture: ${name(text)}`);
      judge(text, rgb(style.fill), ground(text, b), parseFloat(style.fontSize) * scale);
      for (let j = 0; j < i; j++) {
        const o = boxes[j];
        const wide = Math.min(b.right, o.right) - Math.max(b.left, o.left);
        const tall = Math.min(b.bottom, o.bottom) - Math.max(b.top, o.top);
        if (wide > 1 && tall > 3 * scale) wrong.push(`overlap: ${name(text)} and ${name(texts[j])}`);
      }
    });
    if (!document.getElementById(svg.getAttribute("aria-labelledby").split(" ")[0])) wrong.push("svg without a title");
  }

  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || element.closest("svg,script,style") || !seen(element)) continue;
    const style = getComputedStyle(element), range = document.createRange();
    range.selectNodeContents(node);
    const box = range.getBoundingClientRect();
    if (box.left < -0.5 || box.right > innerWidth + 0.5) wrong.push(`beyond the window: ${name(element)}`);
    const card = element.closest(".card");
    if (card && box.right > card.getBoundingClientRect().right - 4) wrong.push(`beyond its card: ${name(element)}`);
    judge(element, rgb(style.color), behind(element), parseFloat(style.fontSize));
  }
  for (const element of document.querySelectorAll("body *")) {
    if (element.closest("svg") || !seen(element) || getComputedStyle(element).display === "inline") continue;
    if (element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 1)
      wrong.push(`does not fit: ${name(element)} ${element.scrollWidth} > ${element.clientWidth}`);
  }
  const ids = [...document.querySelectorAll("[id]")].map(e => e.id);
  if (new Set(ids).size !== ids.length) wrong.push("an id twice");
  return wrong;
}
