// The 3D view: body, skeleton, floor, lights and cameras. World: y up, metres, floor at y = 0.
import {
  BufferGeometry, Color, CylinderGeometry, DirectionalLight, Float32BufferAttribute, Fog, HemisphereLight,
  Line, LineBasicMaterial, LineSegments, Matrix4, Mesh, MeshBasicMaterial, MeshStandardMaterial, PerspectiveCamera,
  PlaneGeometry, Quaternion, Scene, ShadowMaterial, SphereGeometry, SRGBColorSpace, Vector3, VideoTexture, WebGLRenderer,
  InstancedMesh, NeutralToneMapping, NoToneMapping, PCFShadowMap,
} from "three";
import { OrbitControls } from "three/examples/jsm/controls/OrbitControls.js";
import { GLTFLoader } from "three/examples/jsm/loaders/GLTFLoader.js";

const BACKDROP = 0xeceff2;
const CLAY = 0x9dbce6;
const LEFT = 0xe08a2e;
const RIGHT = 0x2f6fb7;
const TRUNK = 0x4b515a;
const FOV = 28;

const sideColour = (name) => (name.startsWith("left") ? LEFT : name.startsWith("right") ? RIGHT : TRUNK);

export class Stage {
  constructor(panel, info) {
    this.panel = panel;
    this.info = info;
    this.onLook = () => {};
    this.follow = info.walks;
    this.over = null; // the texture of the video while the body is laid over it
    this.wanted = { path: true, grid: true };
    this.through = false; // looking through the camera of the motion
    this.seconds = 0;
    const renderer = new WebGLRenderer({ antialias: true });
    renderer.shadowMap.enabled = true;
    renderer.shadowMap.type = PCFShadowMap;
    renderer.toneMapping = NeutralToneMapping;
    renderer.setPixelRatio(Math.min(2, window.devicePixelRatio));
    panel.prepend(renderer.domElement);
    renderer.domElement.tabIndex = 0;
    this.renderer = renderer;
    this.scene = new Scene();
    this.scene.background = new Color(BACKDROP);
    this.scene.fog = new Fog(BACKDROP, 8, 26);
    this.camera = new PerspectiveCamera(FOV, 1, 0.05, 200);
    this.controls = new OrbitControls(this.camera, renderer.domElement);
    Object.assign(this.controls, { enableDamping: false, minDistance: 0.4, maxDistance: 40, maxPolarAngle: Math.PI * 0.52 });
    this.controls.addEventListener("start", () => this._leaveCamera());
    this.controls.addEventListener("change", () => this.draw());
    this._lights();
    this._floor();
    new ResizeObserver(() => this._resize()).observe(panel);
  }

  async load(buffer) {
    const { scene, animations } = await new GLTFLoader().parseAsync(buffer, "");
    this.root = scene;
    this.scene.add(scene);
    this.clay = new MeshStandardMaterial({ color: CLAY, roughness: 0.62, metalness: 0 });
    this.meshes = []; // one per part of the body, with its own colour
    scene.traverse((node) => node.isSkinnedMesh && this.meshes.push(node));
    this.colours = this.meshes.map(({ material }) => material);
    this.materials = [this.clay, ...this.colours];
    // Drawn before a see-through body, into the depth alone, so that only its front is seen.
    const depthOnly = new MeshBasicMaterial({ colorWrite: false });
    this.veils = this.meshes.map((mesh) => {
      mesh.castShadow = mesh.receiveShadow = true;
      mesh.frustumCulled = false;
      mesh.material = this.clay;
      const veil = mesh.clone();
      veil.material = depthOnly;
      veil.castShadow = veil.visible = false;
      mesh.renderOrder = 1;
      mesh.parent.add(veil);
      return veil;
    });
    this.bones = this.meshes[0].skeleton.bones;
    this.tracks = animations[0].tracks.map((track) => {
      const [node, property] = track.name.split(".");
      return { target: scene.getObjectByName(node)[property], curve: track.createInterpolant() };
    });
    this._skeleton();
    this._path(animations[0]);
    this.show(0);
    this._resize();
    this.look(this.info.view || "front");
  }

  // Poses the body at a time and draws.
  show(seconds) {
    this.seconds = seconds;
    for (const { target, curve } of this.tracks) target.fromArray(curve.evaluate(seconds));
    this.root.updateMatrixWorld(true);
    this._moveSkeleton();
    const pelvis = this.pelvis();
    this.sun.position.copy(pelvis).add(this.sunOffset);
    this.sun.target.position.set(pelvis.x, 0.6, pelvis.z);
    if (this.follow && this.lastPelvis && !this.through) {
      const shift = pelvis.clone().sub(this.lastPelvis).setY(0);
      this.camera.position.add(shift);
      this.controls.target.add(shift);
    }
    this.lastPelvis = pelvis;
    this.draw();
  }

  pelvis() {
    return this.bones[0].getWorldPosition(new Vector3());
  }

  // World positions of all joints, [[x, y, z], ...]
  joints() {
    return this.bones.map((bone) => bone.getWorldPosition(new Vector3()).toArray());
  }

  set(name, value) {
    if (name === "body") {
      for (const mesh of this.meshes) mesh.visible = value;
      this._seeThrough();
    }
    if (name === "skeleton") this._showSkeleton(value);
    if (name === "parts") this.meshes.forEach((mesh, n) => (mesh.material = value ? this.colours[n] : this.clay));
    if (name === "wires") for (const material of this.materials) material.wireframe = value;
    if (name === "path" || name === "grid") this.wanted[name] = value;
    if (name === "follow") this.follow = value;
    if (name === "over") this._overVideo(value);
    const { path, grid } = this.wanted;
    this.path.visible = path && !this.over;
    this.grid.visible = grid && !this.over;
    this.ground.visible = !this.over;
    this.draw();
  }

  // A named place to look from.
  look(name) {
    this.onLook(name);
    if (name === "camera") return this._lookThrough();
    this._leaveCamera();
    const { centre, size, facing } = this.info;
    const pelvis = this.pelvis();
    const target = new Vector3(...centre);
    if (this.follow) target.set(pelvis.x, centre[1], pelvis.z);
    const aspect = Math.min(1.15, this.camera.aspect);
    const reach = this.follow ? this.info.reach : size / 2;
    const tangent = Math.tan((FOV * Math.PI) / 360);
    const distance = Math.max((centre[1] * 1.24) / tangent, (reach * 1.1) / (tangent * aspect)) + 0.35 * reach;
    const angle = facing + { front: 0.35, side: Math.PI / 2, back: Math.PI + 0.35, top: 0 }[name];
    const rise = name === "top" ? 1.45 : 0.16;
    const flat = Math.cos(rise) * distance;
    this.camera.position.set(Math.sin(angle) * flat, Math.sin(rise) * distance, Math.cos(angle) * flat).add(target);
    this.controls.target.copy(target);
    this.controls.update();
    this.draw();
  }

  draw() {
    if (this.pending) return;
    this.pending = requestAnimationFrame(() => {
      this.pending = 0;
      this._draw();
    });
  }

  _draw() {
    const { renderer, camera } = this;
    const size = this.panel.getBoundingClientRect();
    renderer.setScissorTest(false);
    renderer.setViewport(0, 0, size.width, size.height);
    if (this.through) {
      renderer.setClearColor(0xdfe3e7);
      const background = this.scene.background;
      this.scene.background = null;
      renderer.clear();
      this.scene.background = background;
      const [x, y, width, height] = this._window(size);
      renderer.setViewport(x, y, width, height);
      renderer.setScissor(x, y, width, height);
      renderer.setScissorTest(true);
    }
    renderer.render(this.scene, camera);
  }

  _window({ width, height }) {
    const { width: w, height: h } = this.info.camera;
    const scale = Math.min(width / w, height / h);
    return [(width - w * scale) / 2, (height - h * scale) / 2, w * scale, h * scale];
  }

  _resize() {
    const { width, height } = this.panel.getBoundingClientRect();
    this.renderer.setSize(width, height);
    this.camera.aspect = width / height;
    if (this.through) this._project();
    else this.camera.updateProjectionMatrix();
    this._draw();
  }

  // Pinhole intrinsics -> the projection of WebGL.
  _project() {
    const { K, width, height } = this.info.camera;
    const [[fx, , cx], [, fy, cy]] = K;
    const near = 0.05;
    const far = 200;
    this.camera.projectionMatrix.set(
      (2 * fx) / width, 0, 1 - (2 * cx) / width, 0,
      0, (2 * fy) / height, (2 * cy) / height - 1, 0,
      0, 0, -(far + near) / (far - near), (-2 * far * near) / (far - near),
      0, 0, -1, 0,
    );
    this.camera.projectionMatrixInverse.copy(this.camera.projectionMatrix).invert();
  }

  _lookThrough() {
    this.through = true;
    const { position, axes } = this.info.camera;
    const [[a, b, c], [d, e, f], [g, h, i]] = axes;
    this.camera.position.set(...position);
    this.camera.quaternion.setFromRotationMatrix(new Matrix4().set(a, b, c, 0, d, e, f, 0, g, h, i, 0, 0, 0, 0, 1));
    const distance = Math.max(0.5, this.camera.position.distanceTo(this.pelvis()));
    this.controls.target.copy(this.camera.position).addScaledVector(new Vector3(-c, -f, -i), distance);
    this._project();
    this.camera.updateMatrixWorld(true);
    this.draw();
  }

  _leaveCamera() {
    if (!this.through) return;
    this.through = false;
    this.onLook("free");
    this.camera.updateProjectionMatrix();
    this.draw();
  }

  _overVideo(video) {
    this.over?.dispose();
    this.over = video ? new VideoTexture(video) : null;
    if (this.over) this.over.colorSpace = SRGBColorSpace;
    this.scene.background = this.over || new Color(BACKDROP);
    this.renderer.toneMapping = video ? NoToneMapping : NeutralToneMapping;
    this._seeThrough();
    if (video) this._lookThrough();
    this.draw();
  }

  _lights() {
    this.scene.add(new HemisphereLight(0xf4f8ff, 0xb9b2a6, 1.75));
    const sun = new DirectionalLight(0xfff4e6, 2.2);
    this.sunOffset = new Vector3(1.7, 3.4, 3.1);
    sun.castShadow = true;
    sun.shadow.mapSize.set(2048, 2048);
    Object.assign(sun.shadow.camera, { left: -2.2, right: 2.2, top: 2.6, bottom: -2, near: 0.5, far: 9 });
    sun.shadow.radius = 4;
    sun.shadow.normalBias = 0.015;
    this.sun = sun;
    this.scene.add(sun, sun.target);
  }

  _floor() {
    const plane = new PlaneGeometry(80, 80).rotateX(-Math.PI / 2);
    this.ground = new Mesh(plane, new ShadowMaterial({ opacity: 0.22 }));
    this.ground.receiveShadow = true;
    this.scene.add(this.ground);
    const half = 20;
    const lines = (spacing, skip, colour) => {
      const points = [];
      for (let n = -half / spacing; n <= half / spacing; n++) {
        if (skip && n % skip === 0) continue;
        const place = n * spacing;
        for (let a = -half; a < half; a++) points.push(place, 0, a, place, 0, a + 1, a, 0, place, a + 1, 0, place);
      }
      const geometry = new BufferGeometry().setAttribute("position", new Float32BufferAttribute(points, 3));
      return new LineSegments(geometry, new LineBasicMaterial({ color: colour, transparent: true, opacity: 0.9 }));
    };
    this.grid = lines(1, 0, 0xb9bec4);
    this.grid.add(lines(0.5, 2, 0xd7dbdf));
    this.grid.position.y = 0.001;
    this.scene.add(this.grid);
  }

  _path(clip) {
    const track = clip.tracks.find(({ name }) => name.endsWith(".position"));
    const spots = [];
    for (let i = 0; i < track.values.length; i += 3) spots.push(track.values[i], 0.006, track.values[i + 2]);
    const geometry = new BufferGeometry().setAttribute("position", new Float32BufferAttribute(spots, 3));
    this.path = new Line(geometry, new LineBasicMaterial({ color: 0xd4623a }));
    this.scene.add(this.path);
  }

  _skeleton() {
    const radius = 0.017;
    const material = new MeshBasicMaterial({ depthTest: false, transparent: true, toneMapped: false });
    this.knobs = new InstancedMesh(new SphereGeometry(radius, 16, 12), material, this.bones.length);
    this.pairs = this.bones.map((bone, index) => [this.bones.indexOf(bone.parent), index]).filter(([parent]) => parent >= 0);
    const rod = new CylinderGeometry(0.35 * radius, 0.35 * radius, 1, 10).translate(0, 0.5, 0);
    this.sticks = new InstancedMesh(rod, material, this.pairs.length);
    const tint = (bone) => new Color(sideColour(bone.name));
    this.bones.forEach((bone, index) => this.knobs.setColorAt(index, tint(bone)));
    this.pairs.forEach(([, child], index) => this.sticks.setColorAt(index, tint(this.bones[child])));
    for (const part of [this.knobs, this.sticks]) {
      part.renderOrder = 2;
      part.frustumCulled = false;
      part.visible = false;
      this.scene.add(part);
    }
  }

  _showSkeleton(value) {
    this.knobs.visible = this.sticks.visible = value;
    this._seeThrough();
  }

  // The skeleton and the video are seen through the body.
  _seeThrough() {
    for (const material of this.materials) {
      material.opacity = this.knobs.visible ? 0.5 : this.over ? 0.78 : 1;
      material.transparent = material.opacity < 1;
      material.needsUpdate = true;
    }
    for (const veil of this.veils) veil.visible = this.meshes[0].visible && this.clay.transparent;
  }

  _moveSkeleton() {
    const places = this.bones.map((bone) => bone.getWorldPosition(new Vector3()));
    const matrix = new Matrix4();
    places.forEach((place, index) => this.knobs.setMatrixAt(index, matrix.makeTranslation(place)));
    this.knobs.instanceMatrix.needsUpdate = true;
    const up = new Vector3(0, 1, 0);
    const turn = new Quaternion();
    this.pairs.forEach(([parent, child], index) => {
      const along = places[child].clone().sub(places[parent]);
      const length = along.length();
      turn.setFromUnitVectors(up, along.divideScalar(length || 1));
      this.sticks.setMatrixAt(index, matrix.compose(places[parent], turn, new Vector3(1, length, 1)));
    });
    this.sticks.instanceMatrix.needsUpdate = true;
  }
}
