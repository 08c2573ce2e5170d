// How long the page holds its main thread, frame by frame. Chromium draws a frame in one task of that thread (scripts, styles,
// layout, painting), and its trace tells each task's own processor time beside the time on the clock: the first says what the
// page does, the second also how busy the machine is with other things.

/** Runs `work` and tells `{longest, tasks, clock}`: the longest task in ms of processor time, and in ms on the clock. */
export async function measureFrames(browser, page, work) {
  await browser.startTracing(page, {categories: ['toplevel']});
  await work();
  const {traceEvents} = JSON.parse(await browser.stopTracing());
  const main = new Set(traceEvents.filter(({name, args}) => name === 'thread_name' && args.name === 'CrRendererMain')
    .map(({pid, tid}) => `${pid}:${tid}`));
  const tasks = traceEvents.filter(({name, pid, tid, tdur}) => name === 'ThreadControllerImpl::RunTask' && tdur && main.has(`${pid}:${tid}`));
  const longest = (key) => tasks.reduce((most, task) => Math.max(most, task[key] / 1000), 0);
  return {tasks: tasks.length, longest: longest('tdur'), clock: longest('dur')};
}
