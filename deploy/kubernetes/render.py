"""Renders a folder as `kubectl kustomize` does, for machines without kubectl.

Knows what the folders here use: resources, namespace, generated config maps, images, and patches
that are merged by name. Anything else is an error. Prints YAML documents.
"""

import hashlib
import pathlib
import sys

import yaml

KNOWN = {"apiVersion", "kind", "namespace", "resources", "configMapGenerator", "images", "patches"}


def render(folder):
    settings = yaml.safe_load((folder / "kustomization.yaml").read_text())
    unknown = set(settings) - KNOWN
    if unknown:
        sys.exit(f"{folder}/kustomization.yaml: {sorted(unknown)} is not known here")
    objects = []
    for name in settings.get("resources", []):
        path = folder / name
        if path.is_dir():
            objects += render(path.resolve())
        else:
            objects += [o for o in yaml.safe_load_all(path.read_text()) if o]
    for made in settings.get("configMapGenerator", []):
        data = {name: (folder / name).read_text() for name in made["files"]}
        digest = hashlib.sha256(repr(sorted(data.items())).encode()).hexdigest()[:10]
        name = f"{made['name']}-{digest}"
        objects = [renamed(o, made["name"], name) for o in objects]
        metadata = {"name": name}
        objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    for patch in settings.get("patches", []):
        change = yaml.safe_load((folder / patch["path"]).read_text())
        found = [o for o in objects if identity(o) == identity(change)]
        if len(found) != 1:
            sys.exit(f"{folder / patch['path']} fits {len(found)} objects")
        merge(found[0], change)
    for o in objects:
        if "namespace" in settings and o["kind"] != "Namespace":
            o["metadata"]["namespace"] = settings["namespace"]
        for container in containers(o):
            for image in settings.get("images", []):
                if container["image"] == image["name"]:
                    container["image"] = f"{image['newName']}:{image['newTag']}"
    return objects


def identity(o):
    return o["kind"], o["metadata"]["name"]


def containers(o):
    spec = o.get("spec") or {}
    return ((spec.get("template") or {}).get("spec") or {}).get("containers", [])


def renamed(o, old, new):
    """With the config map's new name wherever a volume asks for it."""
    if isinstance(o, dict):
        if set(o) >= {"configMap"} and o["configMap"].get("name") == old:
            o["configMap"]["name"] = new
        return {key: renamed(value, old, new) for key, value in o.items()}
    return [renamed(value, old, new) for value in o] if isinstance(o, list) else o


def merge(base, change):
    for key, value in change.items():
        there = base.get(key)
        if isinstance(value, dict) and isinstance(there, dict):
            merge(there, value)
        elif isinstance(value, list) and isinstance(there, list) and named(value) and named(there):
            for item in value:
                same = [one for one in there if one["name"] == item["name"]]
                if same:
                    merge(same[0], item)
                else:
                    there.append(item)
        else:
            base[key] = value


def named(items):
    return all(isinstance(item, dict) and "name" in item for item in items)


if __name__ == "__main__":
    print(yaml.safe_dump_all(render(pathlib.Path(sys.argv[1]).resolve()), sort_keys=False), end="")
