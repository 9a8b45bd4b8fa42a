#!/usr/bin/env python3
"""Writes table.txt, what Kubernetes' schemas say beyond plain JSON schema, to the standard output.

How lists and objects are merged and owned is taken from the schemas that client-go and apiextensions-apiserver carry for
server-side apply (`applyconfigurations/internal/internal.go`), how strategic merge patches treat them from the
`patchStrategy` and `patchMergeKey` tags of the Go types. Each argument is a clone (bare or not).

    generate.py CLIENT_GO APIEXTENSIONS_APISERVER API APIMACHINERY > table.txt
"""

import json
import re
import subprocess
import sys

import yaml

GROUP_VERSION = re.compile(r"(?:^|/)(v[0-9]\w*)/types\.go$")

# The types of kube-aggregator, which publishes no such schema.
AGGREGATOR = {
    ("io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.APIServiceStatus", "conditions"): [
        'list=map', 'key=type:""', 'strategy=merge', 'mergeKey=type'
    ],
}


def show(repository, path):
    return subprocess.run(
        ["git", "-C", repository, "show", f"HEAD:{path}"], check=True, capture_output=True, text=True
    ).stdout


def files(repository):
    command = ["git", "-C", repository, "ls-tree", "-r", "--name-only", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def schema_types(source):
    text = re.search(r"typed\.YAMLObject\(`(.*)`\)", source, re.S).group(1)
    return {t["name"]: t for t in yaml.safe_load(text)["types"]}


def list_words(types, spec):
    if spec.get("elementRelationship") != "associative":
        return []
    if not spec.get("keys"):
        return ["list=set"]
    element = spec["elementType"]
    element = types.get(element.get("namedType"), element)
    fields = {f["name"]: f for f in element.get("map", {}).get("fields", [])}
    words = ["list=map"]
    for key in spec["keys"]:
        default = fields.get(key, {}).get("default")
        words.append(f"key={key}" if default is None else f"key={key}:{json.dumps(default)}")
    return words


def map_words(spec):
    relationship = spec.get("elementRelationship")
    return {"atomic": ["map=atomic"], "separable": ["map=granular"]}.get(relationship, [])


def type_words(types, spec):
    if "namedType" in spec:
        return map_words(spec)
    words = list_words(types, spec.get("list", {}))
    if "list" not in spec and spec.get("map", {}).get("elementRelationship") == "atomic":
        words = ["map=atomic"]
    return words


def relationships(types):
    for name, spec in types.items():
        if not name.startswith("io.k8s."):
            continue
        members = spec.get("map", {})
        if "list" not in spec and members.get("elementRelationship") == "atomic":
            yield (name, "."), ["map=atomic"]
        for field in members.get("fields", []):
            words = type_words(types, field["type"])
            if field.get("default") == {} and "map" in types.get(field["type"].get("namedType"), {}):
                words = words + ["value"]
            if words:
                yield (name, field["name"]), words


def go_structs(source):
    """Struct name -> (fields with tags, names of structs that are embedded)."""
    structs = {}
    for match in re.finditer(r"^type (\w+) struct \{\n(.*?)^\}", source, re.S | re.M):
        fields, embedded = {}, []
        for line in match.group(2).splitlines():
            tag = re.search(r"`(.*)`", line)
            if line.strip().startswith("//") or not tag:
                continue
            names = re.search(r'json:"([^",]*)([^"]*)"', tag.group(1))
            before = line[: tag.start()].split()
            if len(before) == 1 and names and not names.group(1):
                embedded.append(before[0].split(".")[-1])
            words = []
            for attribute, word in (("patchStrategy", "strategy"), ("patchMergeKey", "mergeKey")):
                value = re.search(attribute + r':"([^"]*)"', tag.group(1))
                if value:
                    words.append(f"{word}={value.group(1)}")
            if len(before) > 1 and before[1].startswith("[]") and names and not names.group(2):
                words.append("value")
            if words and names and names.group(1):
                fields[names.group(1)] = words
        structs[match.group(1)] = (fields, embedded)
    return structs


def flattened(structs, name):
    fields, embedded = structs.get(name, ({}, []))
    out = dict(fields)
    for other in embedded:
        out.update(flattened(structs, other))
    return out


def tags(prefix, source):
    structs = go_structs(source)
    for name in structs:
        for field, words in flattened(structs, name).items():
            yield (prefix + name, field), words


def all_tags(extensions, api, machinery):
    for path in files(api):
        version = GROUP_VERSION.search(path)
        if version:
            group = path.split("/")[0]
            yield from tags(f"io.k8s.api.{group}.{version.group(1)}.", show(api, path))
    prefix = "io.k8s.apimachinery.pkg.apis.meta.v1."
    yield from tags(prefix, show(machinery, "pkg/apis/meta/v1/types.go"))
    prefix = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."
    yield from tags(prefix, show(extensions, "pkg/apis/apiextensions/v1/types.go"))


def main():
    client, extensions, api, machinery = sys.argv[1:]
    types = schema_types(show(extensions, "pkg/client/applyconfiguration/internal/internal.go"))
    types |= schema_types(show(client, "applyconfigurations/internal/internal.go"))
    table = {}
    for place, words in relationships(types):
        table.setdefault(place, []).extend(words)
    for place, words in all_tags(extensions, api, machinery):
        # That an atomic list is always there makes no difference.
        merged = table.get(place, []) + words
        if words != ["value"] or any(word.startswith("list=") for word in merged):
            table[place] = merged
    table |= AGGREGATOR
    print(
        "# How the objects and lists of Kubernetes' types are merged and owned, written by generate.py from client-go,\n"
        "# apiextensions-apiserver, api and apimachinery (The Kubernetes Authors, Apache-2.0). Do not edit.\n"
        "# A schema, then its fields (. for the schema itself): list=set, list=map with key=NAME[:DEFAULT], map=atomic or\n"
        "# granular, strategy=PATCH_STRATEGY, mergeKey=NAME, value (no pointer in Go, so always there, empty at least).\n"
        "# What is not listed: objects granular, lists atomic, no strategy, maybe missing."
    )
    last = None
    for (schema, field), words in sorted(table.items()):
        if schema != last:
            print(f"\n{schema}")
            last = schema
        print(" ".join([field, *words]))


if __name__ == "__main__":
    main()
