// Draws operations on a 2D context whose units are the picture's pixels. Painted is opaque.

/** Everything, from nothing. */
export function replay(context, operations, picture) {
  context.clearRect(0, 0, picture.width, picture.height);
  for (const operation of operations) draw(context, operation, picture);
}

export function draw(context, operation, {width, height}) {
  context.save();
  context.globalCompositeOperation = operation.erase ? 'destination-out' : 'source-over';
  if (operation.kind === 'stroke') stroke(context, operation);
  else if (operation.kind === 'rectangle') context.fillRect(operation.left, operation.top, operation.width, operation.height);
  else if (operation.kind === 'clear') context.clearRect(0, 0, width, height);
  else if (operation.kind === 'invert') invert(context, width, height);
  else if (operation.kind === 'mask') earlier(context, operation, width, height);
  context.restore();
}

/** A stroke, or the part of it from the point `from` on: while it is drawn only what is new of it is. */
export function stroke(context, {size, points}, from = 0) {
  const start = Math.max(0, from - 2);
  context.lineWidth = size;
  context.lineCap = context.lineJoin = 'round';
  context.beginPath();
  if (points.length === 2) {
    context.arc(points[0], points[1], size / 2, 0, 2 * Math.PI);
    context.fill();
    return;
  }
  context.moveTo(points[start], points[start + 1]);
  for (let i = start + 2; i < points.length; i += 2) context.lineTo(points[i], points[i + 1]);
  context.stroke();
}

function invert(context, width, height) {
  context.globalCompositeOperation = 'xor';
  context.fillRect(0, 0, width, height);
}

/** A mask that was made before: painted where it is transparent. */
function earlier(context, {image}, width, height) {
  context.globalCompositeOperation = 'source-over';
  context.fillRect(0, 0, width, height);
  context.globalCompositeOperation = 'destination-out';
  context.drawImage(image, 0, 0, width, height);
}
