"""Least-squares fits of the mannequin's build: a coarse surface to a fine one, joints to vertices (build time only)."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix, vstack
from scipy.sparse.linalg import lsqr
from scipy.spatial import cKDTree


def fit_surface(vertices, faces, target, mirror, target_weight, rounds=4, stiffness=0.05):
    """Moves a coarse mesh's vertices (V, 3) so that its surface runs through the middle of the points `target` (T, 3).

    A collapsed mesh is inscribed in the original: limbs become thin and fingers become spikes. Each round finds the
    nearest surface point of every target point and solves for the displacement that brings them together.
    stiffness penalises differences of displacement between neighbours. The result stays mirror-symmetric.
    """
    vertices = vertices.copy()
    edges = np.unique(np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1), axis=0)
    count, rows = len(vertices), np.arange(len(edges))
    smooth = coo_matrix((np.ones(len(edges)), (rows, edges[:, 0])), shape=(len(edges), count))
    smooth = (smooth - coo_matrix((np.ones(len(edges)), (rows, edges[:, 1])), shape=(len(edges), count))) * stiffness
    weight = np.sqrt(target_weight / target_weight.sum() * len(edges))
    for _ in range(rounds):
        face, bary = nearest_on_surface(vertices, faces, target)
        row = np.repeat(np.arange(len(target)), 3)
        system = coo_matrix(((bary * weight[:, None]).ravel(), (row, faces[face].ravel())), shape=(len(target), count))
        residual = (target - (vertices[faces[face]] * bary[..., None]).sum(1)) * weight[:, None]
        system = vstack([system, smooth]).tocsr()
        padding = np.zeros(len(edges))
        move = np.stack([lsqr(system, np.concatenate([residual[:, k], padding]))[0] for k in range(3)], 1)
        vertices += (move + move[mirror] * [-1.0, 1.0, 1.0]) / 2
    return vertices


def nearest_on_surface(vertices, faces, points, candidates=16):
    """Nearest point of a triangle mesh to each of `points` (T, 3) -> face (T,), barycentric coordinates (T, 3)."""
    corners = vertices[faces]  # (N, 3, 3)
    samples = np.concatenate(
        [corners.mean(1), *(0.6 * corners[:, k] + 0.2 * (corners.sum(1) - corners[:, k]) for k in range(3))]
    )
    near = cKDTree(samples).query(points, k=candidates)[1] % len(faces)  # (T, K)
    best = np.full(len(points), np.inf)
    best_face, best_bary = np.zeros(len(points), int), np.zeros((len(points), 3))
    for column in near.T:
        bary = _closest_barycentric(corners[column], points)
        gap = ((points - (corners[column] * bary[..., None]).sum(1)) ** 2).sum(1)
        better = gap < best
        best[better], best_face[better], best_bary[better] = gap[better], column[better], bary[better]
    return best_face, best_bary


def _closest_barycentric(corners, points):
    """Closest point of triangles (T, 3, 3) to points (T, 3), as barycentric coordinates (T, 3)."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    ab, ac, ap = b - a, c - a, points - a
    d00, d01, d11 = (ab * ab).sum(1), (ab * ac).sum(1), (ac * ac).sum(1)
    d20, d21 = (ap * ab).sum(1), (ap * ac).sum(1)
    scale = np.maximum(d00 * d11 - d01 * d01, 1e-18)
    v, w = (d11 * d20 - d01 * d21) / scale, (d00 * d21 - d01 * d20) / scale
    inside = np.stack([1 - v - w, v, w], 1)
    options, gaps = [], []
    for i, j in ((0, 1), (1, 2), (2, 0)):  # outside: the nearest point lies on one of the edges
        edge = corners[:, j] - corners[:, i]
        t = (((points - corners[:, i]) * edge).sum(1) / np.maximum((edge * edge).sum(1), 1e-18)).clip(0, 1)
        bary = np.zeros_like(inside)
        bary[:, i], bary[:, j] = 1 - t, t
        options.append(bary)
        gaps.append(((points - (corners * bary[..., None]).sum(1)) ** 2).sum(1))
    on_edge = np.stack(options, 1)[np.arange(len(points)), np.argmin(gaps, 0)]
    return np.where((inside >= 0).all(1, keepdims=True), inside, on_edge)


def openness(vertices, faces, queries, directions=24, reach=0.25):
    """Share of the sky over each vertex in `queries` (Q,) from which it is seen: near 0 inside mouth and nostrils."""
    golden = np.arange(directions) * np.pi * (3 - 5**0.5)
    up = 1 - 2 * (np.arange(directions) + 0.5) / directions
    sky = np.stack([np.cos(golden) * np.sqrt(1 - up**2), np.sin(golden) * np.sqrt(1 - up**2), up], 1)
    normal = vertex_normals(vertices, faces)[queries]
    start = vertices[queries] + 1e-4 * normal
    near = np.flatnonzero((np.abs(vertices[faces].mean(1) - start.mean(0)) < reach).all(1))
    a, b, c = (vertices[faces[near, k]] for k in range(3))
    seen, total = np.zeros(len(queries)), np.zeros(len(queries))
    for direction in sky:
        facing = np.flatnonzero(normal @ direction > 0.05)
        cross = np.cross(direction, c - a)
        scale = (cross * (b - a)).sum(1)
        scale = np.where(np.abs(scale) < 1e-14, np.inf, scale)
        total[facing] += 1
        for chunk in np.array_split(facing, max(1, len(facing) // 256)):
            offset = start[chunk][:, None] - a[None]
            u = (offset * cross).sum(-1) / scale
            other = np.cross(offset, b - a)
            v = (other @ direction) / scale
            t = (other * (c - a)).sum(-1) / scale
            seen[chunk] += ~((u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0)).any(1)
    return seen / np.maximum(total, 1)


def vertex_normals(vertices, faces):
    normal = np.cross(vertices[faces[:, 1]] - vertices[faces[:, 0]], vertices[faces[:, 2]] - vertices[faces[:, 0]])
    out = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(out, faces[:, corner], normal)
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)


def vertex_areas(vertices, faces):
    normal = np.cross(vertices[faces[:, 1]] - vertices[faces[:, 0]], vertices[faces[:, 2]] - vertices[faces[:, 0]])
    out = np.zeros(len(vertices))
    for corner in range(3):
        np.add.at(out, faces[:, corner], np.linalg.norm(normal, axis=1) / 6)
    return out


def relax(values, faces, amount, rounds):
    """Laplacian smoothing of `values` (V, C) over the mesh; `amount` (V,) in 0..1 says where."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    count = len(values)
    links = coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(count, count)).tocsr()
    links = links + links.T
    mean = links.multiply(1 / np.asarray(links.sum(1))).tocsr()
    for _ in range(rounds):
        values = values + amount[:, None] * (mean @ values - values)
    return values


def fit_joint_rows(vertices, shapedirs, joints, joint_dirs, mirror, mirror_joint, step, reach=260, spread=0.4):
    """Rows of a joint regressor (J, V): non-negative, each sums to 1, few vertices near the joint, mirror-symmetric.

    A row must give the joint of the template exactly and follow it through the shapes: vertices (V, 3), shapedirs
    (V, 3, K) against joints (J, 3), joint_dirs (J, 3, K). `spread` keeps single weights small, and they are
    multiples of `step`: float16 holds them exactly.
    """
    from scipy.optimize import nnls

    out = np.zeros((len(joints), len(vertices)))
    for joint, point in enumerate(joints):
        if mirror_joint[joint] < joint:
            continue
        near = np.argsort(((vertices - point) ** 2).sum(1), kind="stable")[:reach]
        if mirror_joint[joint] == joint:
            near = np.union1d(near, mirror[near])
        system = np.concatenate([
            1e3 * np.ones((1, len(near))),
            1e3 * (vertices[near] - point).T,
            30 * (shapedirs[near] - joint_dirs[joint]).reshape(len(near), -1).T,
            spread * np.eye(len(near)),
        ])  # fmt: skip
        target = np.zeros(len(system))
        target[0] = 1e3
        row = np.zeros(len(vertices))
        row[near] = nnls(system, target, maxiter=20 * len(near))[0]
        if mirror_joint[joint] == joint:
            row = (row + row[mirror]) / 2
        out[joint] = rounded(row / row.sum(), step, mirror if mirror_joint[joint] == joint else None)
        out[mirror_joint[joint]] = out[joint][mirror]
    return out


def rounded(row, step, mirror=None):
    """Rounds a non-negative row (V,) that sums to 1 to multiples of `step`; the sum stays exactly 1.

    Multiples of 2^-k below 2^(11-k) are exact in float16. With `mirror` (V,) the row is kept mirror-symmetric.
    """
    exact = row / step
    units = np.floor(exact)
    missing = int(round(1 / step) - units.sum())
    for i in np.argsort(units - exact, kind="stable"):  # largest remainders first
        pair = {int(i)} if mirror is None else {int(i), int(mirror[i])}
        if missing >= len(pair) and row[i] > 0 and units[i] <= exact[i]:
            units[list(pair)] += 1
            missing -= len(pair)
    if missing:  # one unit is left and only pairs would take it: the heaviest vertex on the mirror plane gets it
        units[np.where(mirror == np.arange(len(row)), row, 0.0).argmax()] += missing
    return units * step
