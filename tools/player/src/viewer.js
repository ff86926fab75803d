// A plain three.js viewer for the files that we export, with the loaders that every three.js page uses. It is not
// shipped: tests open our GLB, BVH, USDA and OBJ files with it.
import {
  AnimationMixer, Box3, Color, DirectionalLight, GridHelper, Group, HemisphereLight, Mesh, MeshStandardMaterial,
  PerspectiveCamera, Scene, SkeletonHelper, Vector3, WebGLRenderer,
} from "three";
import { BVHLoader } from "three/examples/jsm/loaders/BVHLoader.js";
import { GLTFLoader } from "three/examples/jsm/loaders/GLTFLoader.js";
import { OBJLoader } from "three/examples/jsm/loaders/OBJLoader.js";
import { USDLoader } from "three/examples/jsm/loaders/USDLoader.js";

const renderer = new WebGLRenderer({ antialias: true, preserveDrawingBuffer: true });
renderer.setSize(innerWidth, innerHeight);
document.body.append(renderer.domElement);
const camera = new PerspectiveCamera(30, innerWidth / innerHeight, 0.01, 1000);
let scene, root, mixer, bones;

const loaders = {
  async glb(bytes) {
    const { scene, animations } = await new GLTFLoader().parseAsync(bytes.buffer, "");
    return [scene, animations, null];
  },
  async bvh(bytes) {
    const { skeleton, clip } = new BVHLoader().parse(new TextDecoder().decode(bytes));
    const group = new Group();
    group.add(skeleton.bones[0]);
    return [group, [clip], skeleton];
  },
  async usda(bytes) {
    const group = new USDLoader().parse(new TextDecoder().decode(bytes));
    return [group, group.animations || [], null];
  },
  async obj(bytes) {
    return [new OBJLoader().parse(new TextDecoder().decode(bytes)), [], null];
  },
};

// Loads a file (base64); tells the names of its joints, the length of its clip and how many triangles it has.
window.openFile = async (kind, text, scale) => {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const [loaded, clips, skeleton] = await loaders[kind](bytes);
  scene = new Scene();
  scene.background = new Color(0xeceff2);
  scene.add(new HemisphereLight(0xffffff, 0xb9b2a6, 1.7));
  const sun = new DirectionalLight(0xfff4e6, 1.8);
  sun.position.set(2, 4, 3);
  scene.add(sun);
  root = new Group();
  root.scale.setScalar(scale);
  root.add(loaded);
  scene.add(root, new GridHelper(10, 20, 0xb9bec4, 0xd7dbdf));
  let found = skeleton;
  let triangles = 0;
  root.traverse((node) => {
    if (!node.isMesh) return;
    node.frustumCulled = false;
    triangles += (node.geometry.index || node.geometry.attributes.position).count / 3;
    if (node.isSkinnedMesh) found = node.skeleton;
    if (kind === "obj") node.material = new MeshStandardMaterial({ color: 0x8fb0dc });
  });
  bones = found ? found.bones : [];
  if (!triangles && bones.length) scene.add(new SkeletonHelper(bones[0]));
  mixer = clips.length ? new AnimationMixer(skeleton ? bones[0] : loaded) : null;
  if (mixer) mixer.clipAction(clips[0]).play();
  return { names: bones.map(({ name }) => name), seconds: clips.length ? clips[0].duration : 0, triangles };
};

// Shows a moment and returns the joints' places in the world.
window.showTime = (seconds) => {
  mixer?.setTime(seconds);
  root.updateMatrixWorld(true);
  const places = bones.map((bone) => bone.getWorldPosition(new Vector3()));
  const box = new Box3();
  if (places.length) box.setFromPoints(places).expandByScalar(0.12);
  else box.setFromObject(root);
  const centre = box.getCenter(new Vector3());
  const size = box.getSize(new Vector3()).length();
  camera.position.copy(centre).add(new Vector3(0.45, 0.22, 1).normalize().multiplyScalar(size * 2.1));
  camera.lookAt(centre);
  renderer.render(scene, camera);
  return places.map((place) => place.toArray());
};
document.body.dataset.ready = "true";
