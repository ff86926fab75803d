"""Mirror-symmetric mesh reduction for the mannequin, by half-edge collapse under quadric error (build time only).

A half-edge collapse u -> v removes vertex u and leaves every other vertex where it was. The result is therefore a
subset of the original vertices: skinning weights and blend shapes carry over without interpolation. Every collapse is
done together with its mirror image, and the link condition keeps a closed surface of genus 0 closed and of genus 0,
so that V vertices always end with exactly 2V - 4 triangles.

Error measure: Garland and Heckbert, "Surface simplification using quadric error metrics", 1997.
"""

from __future__ import annotations

import heapq
from collections import Counter

import numpy as np

MAX_VALENCE = 10
SHORT_EDGE = 2e-3  # weight of squared edge length beside the quadric error: flat regions stay evenly divided


def mirror_map(vertices: np.ndarray, tolerance: float = 1e-5) -> np.ndarray:
    """For each vertex (V, 3) the index of its mirror image in the plane x = 0; itself on the plane."""
    from scipy.spatial import cKDTree

    distance, index = cKDTree(vertices).query(vertices * [-1.0, 1.0, 1.0])
    if distance.max() > tolerance or not np.array_equal(index[index], np.arange(len(vertices))):
        raise ValueError(f"the mesh is not mirror-symmetric: worst distance {distance.max():.2e} m")
    return index


class Collapse:
    """State of one reduction. `region` (V,) names the region of each vertex, `quota` how many each may keep."""

    def __init__(self, vertices, faces, region, quota, importance=None):
        self.p = [tuple(map(float, x)) for x in vertices]
        self.mirror = mirror_map(vertices).tolist()
        self.faces = [tuple(map(int, f)) for f in faces]
        self.alive_face = [True] * len(self.faces)
        self.alive = [True] * len(self.p)
        self.region = [str(r) for r in region]
        self.count = Counter(self.region)
        self.quota = dict(quota)
        self.importance = [1.0] * len(self.p) if importance is None else [float(x) for x in importance]
        self.ring: list[set[int]] = [set() for _ in self.p]  # faces around each vertex
        for i, face in enumerate(self.faces):
            for vertex in face:
                self.ring[vertex].add(i)
        self.quadric = self._quadrics(np.asarray(vertices, float), np.asarray(faces))  # (V, 4, 4)
        self.stamp = [0] * len(self.p)
        self.heap: list[tuple[float, int, int, int]] = []

    @staticmethod
    def _quadrics(vertices, faces):
        """Area-weighted plane quadrics summed to the vertices, as symmetric (V, 4, 4)."""
        normal = np.cross(vertices[faces[:, 1]] - vertices[faces[:, 0]], vertices[faces[:, 2]] - vertices[faces[:, 0]])
        area = np.linalg.norm(normal, axis=1)
        normal = normal / np.maximum(area, 1e-12)[:, None]
        plane = np.concatenate([normal, -(normal * vertices[faces[:, 0]]).sum(1, keepdims=True)], 1)
        outer = area[:, None, None] * plane[:, :, None] * plane[:, None, :] / 6
        out = np.zeros((len(vertices), 4, 4))
        for corner in range(3):
            np.add.at(out, faces[:, corner], outer)
        return out

    def neighbours(self, vertex: int) -> set[int]:
        out: set[int] = set()
        for face in self.ring[vertex]:
            out.update(self.faces[face])
        out.discard(vertex)
        return out

    def cost(self, u: int, v: int) -> float:
        (ux, uy, uz), (x, y, z) = self.p[u], self.p[v]
        point = np.array([x, y, z, 1.0])
        error = float(point @ (self.quadric[u] + self.quadric[v]) @ point)
        length = (x - ux) ** 2 + (y - uy) ** 2 + (z - uz) ** 2
        area = sum(self._area(f) for f in self.ring[u])
        return (error + SHORT_EDGE * length * area) * self.importance[u]

    def _area(self, face: int) -> float:
        return 0.5 * _norm(_normal(*(self.p[i] for i in self.faces[face])))

    def push(self, u: int) -> None:
        """Offers the cheapest legal collapses of u."""
        if self.count[self.region[u]] <= self.quota[self.region[u]]:
            return
        on_plane = self.mirror[u] == u
        for v in self.neighbours(u):
            if not on_plane or self.mirror[v] == v:
                heapq.heappush(self.heap, (self.cost(u, v), u, v, self.stamp[u]))

    def legal(self, u: int, v: int) -> bool:
        """Link condition, valence, and no triangle that flips or degenerates."""
        around_u, around_v = self.neighbours(u), self.neighbours(v)
        if v not in around_u or len(around_u & around_v) != 2:
            return False
        if len(around_u | around_v) - 2 > MAX_VALENCE:
            return False
        if any(len(self.ring[w]) <= 3 for w in around_u & around_v):
            return False
        for face in self.ring[u]:
            corners = self.faces[face]
            if v in corners:
                continue
            old = [self.p[i] for i in corners]
            new = [self.p[v if i == u else i] for i in corners]
            before, after = _normal(*old), _normal(*new)
            size = _norm(before) * _norm(after)
            if _dot(before, after) < 0.35 * size or size == 0.0:
                return False
            if _shape(new, after) < min(0.12, 0.8 * _shape(old, before)):
                return False
        return True

    def collapse(self, u: int, v: int) -> None:
        for face in list(self.ring[u]):
            corners = self.faces[face]
            if v in corners:
                self.alive_face[face] = False
                for i in corners:
                    self.ring[i].discard(face)
            else:
                self.faces[face] = tuple(v if i == u else i for i in corners)
                self.ring[v].add(face)
        self.ring[u].clear()
        self.alive[u] = False
        self.quadric[v] += self.quadric[u]
        self.count[self.region[u]] -= 1

    def run(self) -> tuple[np.ndarray, np.ndarray]:
        """Collapses until every region meets its quota -> kept vertex indices, faces on them."""
        for u in range(len(self.p)):
            self.push(u)
        while self.heap:
            _, u, v, stamp = heapq.heappop(self.heap)
            if not self.alive[u] or not self.alive[v] or stamp != self.stamp[u]:
                continue
            surplus = self.count[self.region[u]] - self.quota[self.region[u]]
            mu, mv = self.mirror[u], self.mirror[v]
            if surplus < (1 if mu == u else 2) or not self.legal(u, v):
                continue
            touched = self.neighbours(u)
            if mu != u:
                shared = (self.neighbours(u) | {u}) & (self.neighbours(mu) | {mu})
                if any(self.mirror[i] != i for i in shared):
                    continue  # the two stars overlap beyond the mirror plane
                if v == mv and any(i != v and i not in self.neighbours(v) for i in shared):
                    continue  # both would pull the same plane vertex to v
                touched |= self.neighbours(mu)
            self.collapse(u, v)
            if mu != u:
                self.collapse(mu, mv)
            for i in touched:
                if self.alive[i]:
                    self.stamp[i] += 1
                    self.push(i)
        short = {r: (c, self.quota[r]) for r, c in self.count.items() if c > self.quota[r]}
        if short:
            raise ValueError(f"no legal collapse is left; regions still above their quota (have, want): {short}")
        kept = np.flatnonzero(self.alive)
        new_index = np.full(len(self.p), -1)
        new_index[kept] = np.arange(len(kept))
        return kept, new_index[np.array([f for f, a in zip(self.faces, self.alive_face, strict=True) if a])]


def _normal(a, b, c):
    ux, uy, uz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    vx, vy, vz = c[0] - a[0], c[1] - a[1], c[2] - a[2]
    return (uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx)


def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _norm(a):
    return _dot(a, a) ** 0.5


def _shape(corners, normal):
    """1 for an equilateral triangle, 0 for a needle."""
    a, b, c = corners
    edges = sum((x[0] - y[0]) ** 2 + (x[1] - y[1]) ** 2 + (x[2] - y[2]) ** 2 for x, y in ((a, b), (b, c), (c, a)))
    return 3.4641016 * _norm(normal) / max(edges, 1e-18)
