/** What tests put before the worker's script to break things where a machine would. */

export const noWebGPU = 'delete WorkerNavigator.prototype.gpu;';

export const noGraphics = `${noWebGPU} OffscreenCanvas.prototype.getContext = () => null;`;

export const crash = 'setTimeout(() => { throw new Error("broken by the test"); });';

/** Ends when it is told to. */
export const mortal = `new BroadcastChannel('test').onmessage = () => setTimeout(() => { throw new Error('ended by the test'); });`;

/** Loses the device, or has it say that memory ran out, when it is told to. */
export const breakableWebGPU = `{
  const requestDevice = GPUAdapter.prototype.requestDevice;
  let device;
  GPUAdapter.prototype.requestDevice = async function (...args) {
    return (device = await requestDevice.apply(this, args));
  };
  new BroadcastChannel('test').onmessage = ({data}) => {
    if (data === 'lose') device.destroy();
    const error = new GPUOutOfMemoryError('broken by the test');
    if (data === 'fill') device.dispatchEvent(new GPUUncapturedErrorEvent('uncapturederror', {error}));
  };
}`;

export const breakableWebGL = `{
  const getContext = OffscreenCanvas.prototype.getContext;
  const contexts = [];
  OffscreenCanvas.prototype.getContext = function (...args) {
    const context = getContext.apply(this, args);
    if (context) contexts.push(context);
    return context;
  };
  new BroadcastChannel('test').onmessage = () => {
    for (const context of contexts) context.getExtension('WEBGL_lose_context').loseContext();
  };
}`;

/** A browser that serves a call's events half a second after its answer: they have ports of their own. */
export const lateEvents = `{
  const postMessage = MessagePort.prototype.postMessage;
  MessagePort.prototype.postMessage = function (...args) {
    setTimeout(() => postMessage.apply(this, args), 500);
  };
}`;
