// The video beside the body. `times[f]` is the second of the video that shows frame f of the motion.
export class Film {
  constructor(panel, bytes, { type, times }) {
    this.times = times;
    this.lasting = times[times.length - 1] - times[times.length - 2] || 0.04; // seconds of the last picture
    this.panel = panel;
    this.works = false;
    this.shown = null; // second of the picture on the screen, where the browser tells it
    this.onPicture = () => {};
    this.onRefused = () => {}; // the browser wants a press of a button first
    const video = document.createElement("video");
    Object.assign(video, { muted: true, playsInline: true, preload: "auto", controls: false });
    video.src = URL.createObjectURL(new Blob([bytes], { type }));
    this.video = video;
    panel.hidden = false;
    panel.append(video);
    this.ready = new Promise((resolve) => {
      video.addEventListener("loadeddata", () => resolve((this.works = true)), { once: true });
      video.addEventListener("error", () => resolve(this._broken()), { once: true });
    });
    if (video.requestVideoFrameCallback) {
      const note = (_, { mediaTime }) => {
        this.shown = mediaTime;
        this.onPicture();
        video.requestVideoFrameCallback(note);
      };
      video.requestVideoFrameCallback(note);
    }
  }

  get ended() {
    return this.video.ended;
  }

  seek(frame) {
    const next = this.times[Math.min(frame + 1, this.times.length - 1)];
    const step = Math.min(next - this.times[frame] || Infinity, this.times[1] - this.times[0] || 0.02);
    this.shown = null;
    this.video.currentTime = this.times[frame] + step / 2; // the middle of the picture, so that rounding cannot miss it
  }

  play(speed) {
    this.video.playbackRate = speed;
    this.video.play().catch(({ name }) => {
      if (name === "NotSupportedError") this._broken();
      else if (name === "NotAllowedError") this.onRefused();
    }); // AbortError: paused again before it began, which is no fault
  }

  pause() {
    this.video.pause();
  }

  // The frame of the motion, with fraction, that belongs to the picture on the screen.
  shownFrame() {
    const now = (this.shown ?? this.video.currentTime) + 1e-3;
    const times = this.times;
    let low = 0;
    let high = times.length - 1;
    if (now >= times[high]) return this.video.ended || now >= times[high] + this.lasting ? high + 1 : high;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (times[middle] <= now) low = middle;
      else high = middle;
    }
    return low + (this.shown === null ? Math.min(1, Math.max(0, (now - times[low]) / (times[high] - times[low]))) : 0);
  }

  _broken() {
    this.works = false;
    this.video.remove();
    this.panel.classList.add("broken");
    this.panel.querySelector("p").textContent =
      "This browser cannot play the video (H.264 or VP9 is needed); the body moves without it.";
    return false;
  }
}
