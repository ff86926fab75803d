// Time: one clock for the body and the video. While a video plays, it is the clock; else the browser's is.
export class Clock {
  constructor(info, film, onTime) {
    this.fps = info.fps;
    this.frames = info.frames;
    this.film = film;
    this.onTime = onTime;
    this.seconds = 0;
    this.speed = 1;
    this.loop = true;
    this.playing = false;
    this._tick = this._tick.bind(this);
    if (film) film.onPicture = () => this.playing && this._update();
    if (film) film.onRefused = () => this.pause();
  }

  get frame() {
    return Math.min(this.frames - 1, Math.max(0, Math.floor(this.seconds * this.fps + 1e-4)));
  }

  get _filmLeads() {
    return this.film !== null && this.film.works;
  }

  seek(frame) {
    frame = Math.min(this.frames - 1, Math.max(0, frame));
    this.seconds = frame / this.fps;
    if (this._filmLeads) this.film.seek(frame);
    this._last = undefined;
    this.onTime(this.seconds);
  }

  step(frames) {
    this.pause();
    this.seek(this.frame + frames);
  }

  toggle() {
    this.playing ? this.pause() : this.play();
  }

  play() {
    if (this.playing) return;
    if (this.frame >= this.frames - 1) this.seek(0);
    this.playing = true;
    this._last = undefined;
    if (this._filmLeads) this.film.play(this.speed);
    requestAnimationFrame(this._tick);
    this.onTime(this.seconds);
  }

  pause() {
    if (!this.playing) return;
    this.playing = false;
    if (this._filmLeads) this.film.pause();
    this.seek(this.frame); // a standing picture shows a pose of the file, not one between two
  }

  setSpeed(speed) {
    this.speed = speed;
    if (this._filmLeads) this.film.video.playbackRate = speed;
  }

  _tick(now) {
    if (!this.playing) return;
    const ended = this._update(now);
    if (ended && this.loop) {
      this.seek(0);
      if (this._filmLeads) this.film.play(this.speed);
    } else if (ended) {
      this.pause();
    }
    if (this.playing) requestAnimationFrame(this._tick);
  }

  // Moves the body to the present time; true at the end of the clip.
  _update(now) {
    const ended = this._filmLeads ? this._followFilm() : this._advance(now);
    this.onTime(Math.min(this.seconds, (this.frames - 1) / this.fps));
    return ended;
  }

  _followFilm() {
    this.seconds = this.film.shownFrame() / this.fps;
    return this.film.ended || this.seconds >= this.frames / this.fps;
  }

  _advance(now) {
    if (this._last !== undefined) this.seconds += ((now - this._last) / 1000) * this.speed;
    this._last = now;
    return this.seconds >= this.frames / this.fps;
  }
}
