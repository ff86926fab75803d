"""The compiled drawing loop of the synthetic clips (numba, an optional package of the `train` extra).

Draws video and motion map of a clip in one pass with 2 x 2 samples per pixel. `draw.py` holds the same picture in plain
PyTorch and says what is drawn; this file exists because training wants twenty clips a second.
"""

from __future__ import annotations

import numpy as np
from numba import njit

SAMPLES = 2


@njit(cache=True, boundscheck=False)
def draw_frames(vertices, faces, colours, semantic, plate, floor, blobs, focal, cx, cy, sun, rgb, motion_map):
    """Fill `rgb` and `motion_map` (F, H, W, 3) uint8. See draw.draw_clip for the meaning of the arguments."""
    num_frames, num_vertices = vertices.shape[0], vertices.shape[1]
    height, width = plate.shape[0], plate.shape[1]
    big_h, big_w = height * SAMPLES, width * SAMPLES
    nearest = np.zeros((big_h, big_w), np.float32)
    owner = np.zeros((big_h, big_w), np.int32)
    weight = np.zeros((big_h, big_w, 3), np.float32)
    normals = np.zeros((num_vertices, 3), np.float32)
    screen = np.zeros((num_vertices, 3), np.float32)
    attribute = np.zeros((num_vertices, 3), np.float32)
    for f in range(num_frames):
        points = vertices[f]
        normals[:] = 0
        for n in range(faces.shape[0]):
            a, b, c = faces[n, 0], faces[n, 1], faces[n, 2]
            ux, uy, uz = points[b, 0] - points[a, 0], points[b, 1] - points[a, 1], points[b, 2] - points[a, 2]
            vx, vy, vz = points[c, 0] - points[a, 0], points[c, 1] - points[a, 1], points[c, 2] - points[a, 2]
            nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
            for i in (a, b, c):
                normals[i, 0] += nx
                normals[i, 1] += ny
                normals[i, 2] += nz
        x_min, x_max, y_min, y_max = big_w, -1, big_h, -1
        for i in range(num_vertices):
            length = np.sqrt(normals[i, 0] ** 2 + normals[i, 1] ** 2 + normals[i, 2] ** 2) + 1e-12
            normals[i, 0] /= length
            normals[i, 1] /= length
            normals[i, 2] /= length
            screen[i, 2] = 1.0 / points[i, 2]
            screen[i, 0] = (focal * points[i, 0] * screen[i, 2] + cx) * SAMPLES
            screen[i, 1] = (focal * points[i, 1] * screen[i, 2] + cy) * SAMPLES
            attribute[i, 0] = (2 * semantic[i] + (1 if normals[i, 2] < 0 else 2)) / 48.0
            attribute[i, 1] = normals[i, 1] * 0.5 + 0.5
            attribute[i, 2] = normals[i, 0] * 0.5 + 0.5
            x_min, x_max = min(x_min, int(screen[i, 0])), max(x_max, int(screen[i, 0]) + 1)
            y_min, y_max = min(y_min, int(screen[i, 1])), max(y_max, int(screen[i, 1]) + 1)
        x_min, y_min = max(x_min - x_min % SAMPLES - SAMPLES, 0), max(y_min - y_min % SAMPLES - SAMPLES, 0)
        x_max, y_max = min(x_max + 2 * SAMPLES, big_w), min(y_max + 2 * SAMPLES, big_h)
        nearest[y_min:y_max, x_min:x_max] = 0
        for n in range(faces.shape[0]):
            a, b, c = faces[n, 0], faces[n, 1], faces[n, 2]
            ax, ay, bx, by, px, py = screen[a, 0], screen[a, 1], screen[b, 0], screen[b, 1], screen[c, 0], screen[c, 1]
            area = (bx - ax) * (py - ay) - (px - ax) * (by - ay)
            if area >= 0:  # seen from behind: counter-clockwise outside is clockwise with y down
                continue
            inverse = 1.0 / area
            left, right = max(int(np.floor(min(ax, bx, px) - 0.5)), 0), min(int(max(ax, bx, px) + 0.5), big_w - 1)
            top, bottom = max(int(np.floor(min(ay, by, py) - 0.5)), 0), min(int(max(ay, by, py) + 0.5), big_h - 1)
            for y in range(top, bottom + 1):
                sy = y + 0.5
                for x in range(left, right + 1):
                    sx = x + 0.5
                    w0 = ((bx - sx) * (py - sy) - (px - sx) * (by - sy)) * inverse
                    w1 = ((px - sx) * (ay - sy) - (ax - sx) * (py - sy)) * inverse
                    w2 = 1.0 - w0 - w1
                    if w0 < 0 or w1 < 0 or w2 < 0:
                        continue
                    w0, w1, w2 = w0 * screen[a, 2], w1 * screen[b, 2], w2 * screen[c, 2]
                    closeness = w0 + w1 + w2  # 1 / depth is linear on the screen
                    if closeness > nearest[y, x]:
                        nearest[y, x] = closeness
                        owner[y, x] = n
                        weight[y, x, 0], weight[y, x, 1], weight[y, x, 2] = w0, w1, w2
        for y in range(height):
            for x in range(width):
                dark = np.float32(1.0)
                if floor[y, x, 2] > 0:
                    for k in range(blobs.shape[1]):
                        dx, dz = floor[y, x, 0] - blobs[f, k, 0], floor[y, x, 1] - blobs[f, k, 1]
                        distance = (dx * dx + dz * dz) * blobs[f, k, 2]
                        if distance < 8:
                            dark *= 1.0 - floor[y, x, 2] * blobs[f, k, 3] * np.exp(-distance)
                inside = 0
                r = g = b_ = np.float32(0)
                m0 = m1 = m2 = np.float32(0)
                if x_min <= x * SAMPLES < x_max and y_min <= y * SAMPLES < y_max:
                    for sub in range(SAMPLES * SAMPLES):
                        yy, xx = y * SAMPLES + sub // SAMPLES, x * SAMPLES + sub % SAMPLES
                        if nearest[yy, xx] <= 0:
                            continue
                        inside += 1
                        scale = 1.0 / nearest[yy, xx]
                        n = owner[yy, xx]
                        cr = cg = cb = nx = ny = nz = t0 = t1 = t2 = qx = qy = qz = np.float32(0)
                        for corner in range(3):
                            i, w = faces[n, corner], weight[yy, xx, corner] * scale
                            cr += w * colours[i, 0]
                            cg += w * colours[i, 1]
                            cb += w * colours[i, 2]
                            nx += w * normals[i, 0]
                            ny += w * normals[i, 1]
                            nz += w * normals[i, 2]
                            t0 += w * attribute[i, 0]
                            t1 += w * attribute[i, 1]
                            t2 += w * attribute[i, 2]
                            qx += w * points[i, 0]
                            qy += w * points[i, 1]
                            qz += w * points[i, 2]
                        length = np.sqrt(nx * nx + ny * ny + nz * nz) + 1e-12
                        nx, ny, nz = nx / length, ny / length, nz / length
                        lit = 0.66 + 0.40 * max(nx * sun[0] + ny * sun[1] + nz * sun[2], 0.0)
                        r += cr * lit
                        g += cg * lit
                        b_ += cb * lit
                        lx, ly, lz = -qx, 1.0 - qy, -qz
                        length = np.sqrt(lx * lx + ly * ly + lz * lz)
                        shade = 0.5 + 0.3 * max((nx * lx + ny * ly + nz * lz) / length, 0.0)
                        m0 += shade * t0 + 0.2
                        m1 += shade * t1 + 0.2
                        m2 += shade * t2 + 0.2
                share = 1.0 / (SAMPLES * SAMPLES)
                bare = 1.0 - inside * share
                rgb[f, y, x, 0] = np.uint8(min(r * share + bare * dark * plate[y, x, 0], 1.0) * 255 + 0.5)
                rgb[f, y, x, 1] = np.uint8(min(g * share + bare * dark * plate[y, x, 1], 1.0) * 255 + 0.5)
                rgb[f, y, x, 2] = np.uint8(min(b_ * share + bare * dark * plate[y, x, 2], 1.0) * 255 + 0.5)
                motion_map[f, y, x, 0] = np.uint8(min(m0 * share + bare, 1.0) * 255 + 0.5)
                motion_map[f, y, x, 1] = np.uint8(min(m1 * share + bare, 1.0) * 255 + 0.5)
                motion_map[f, y, x, 2] = np.uint8(min(m2 * share + bare, 1.0) * 255 + 0.5)
