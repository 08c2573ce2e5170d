// A process that stands for the engine's on the card. The sidecar knows the engine's by their systemd unit, which it reads
// from their control group: making one takes root, and a machine that lets it.

import {spawn} from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';

const ROOTS = ['/sys/fs/cgroup/systemd', '/sys/fs/cgroup'];

/** `{unit, pid, stop}`, or null where there can be none. */
export function engineProcess() {
  const unit = `ada2-page-test-${process.pid}.service`;
  const child = spawn('sleep', ['infinity'], {stdio: 'ignore'});
  const root = ROOTS.find((one) => join(one, unit, child.pid));
  if (!root) {
    child.kill();
    return null;
  }
  const stop = () => {
    leave(root, unit, child.pid);
    child.kill('SIGKILL');
  };
  process.once('exit', stop);
  return {unit, pid: child.pid, stop};
}

const members = (...parts) => path.join(...parts, 'cgroup.procs');

function join(root, unit, pid) {
  try {
    fs.mkdirSync(path.join(root, unit));
    fs.writeFileSync(members(root, unit), String(pid));
    return true;
  } catch {
    leave(root, unit, pid);
    return false;
  }
}

/** A group can be removed only when it is empty. */
function leave(root, unit, pid) {
  try {
    fs.writeFileSync(members(root), String(pid));
    fs.rmdirSync(path.join(root, unit));
  } catch {
    // It was never made, or is gone.
  }
}
