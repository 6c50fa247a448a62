// That the merge of a manifest with a listing turns any tree into that of the manifest, keeps everything that may stay
// and looks into nothing else: against a model that knows sets of paths only. And which regions are fetched.
import KedgeCatalog
import KedgeCore
import KedgeRestore
import KedgeTestSupport
import Testing

@Suite struct TreeMergeTests {
    private typealias Tree = [String: FileKind]

    @Test("generated trees become those of the manifest, and what may stay is kept")
    func generated() throws {
        for round in 0..<2000 {
            let random = SeededRandom(seed: testSeed() &* 10_000 &+ UInt64(round))
            let (wanted, found) = (Self.tree(random), Self.tree(random))
            let context: Comment = "seed \(testSeed()), round \(round)"
            var listed: [String] = []
            var steps: [TreeStep] = []
            var merge = try TreeMerge(kind: { Self.kind(of: $0) }) { (path) throws(KedgeError) in
                listed.append(path?.description ?? "")
                return Self.list(found, path?.description)
            }
            for entry in Self.entries(wanted) { steps += try merge.take(entry) }
            steps += merge.finish()
            var tree = found
            for step in steps { Self.apply(step, to: &tree, context) }
            #expect(tree == wanted, context)
            // By paths alone: what both have, as far as all directories above are directories in both.
            let kept = Set(steps.compactMap { if case .keep(let entry) = $0 { entry.path.description } else { nil } })
            let common = wanted.filter { path, kind in
                found[path] == kind && Self.parents(path).allSatisfy { found[$0] == .directory }
            }
            #expect(kept == Set(common.keys), context)
            let directories = common.filter { $0.value == .directory }
            #expect(Set(listed) == Set(directories.keys).union([""]), context)
            #expect(listed.count == directories.count + 1, context)
        }
    }

    /// Carries a step out on a model, which notices what cannot be done.
    private static func apply(_ step: TreeStep, to tree: inout Tree, _ context: Comment) {
        func remove(_ path: ManifestPath, _ kind: FileKind) {
            #expect(tree[path.description] == kind, context)
            tree = tree.filter { $0.key != path.description && !$0.key.hasPrefix(path.description + "/") }
        }
        func make(_ entry: ManifestEntry) {
            #expect(tree[entry.path.description] == nil, context)
            #expect(parents(entry.path.description).allSatisfy { tree[$0] == .directory }, context)
            tree[entry.path.description] = kind(of: entry)
        }
        switch step {
        case .remove(let path, let kind): remove(path, kind)
        case .make(let entry): make(entry)
        case .replace(let entry, let kind):
            remove(entry.path, kind)
            make(entry)
        case .keep(let entry): #expect(tree[entry.path.description] == kind(of: entry), context)
        }
    }

    /// Few names, so that two trees meet, and such that sort differently around "/".
    private static func tree(_ random: SeededRandom) -> Tree {
        let names = ["a", "a-", "a.b", "b", "a0", "\u{7F}"]
        var tree: Tree = [:]
        var directories = [""]
        for _ in 0..<random.next(below: 14) {
            let directory = directories[random.next(below: directories.count)]
            let path = (directory.isEmpty ? "" : directory + "/") + names[random.next(below: names.count)]
            guard tree[path] == nil else { continue }
            let kind: FileKind = [.regular, .directory, .directory][random.next(below: 3)]
            tree[path] = kind
            if kind == .directory { directories.append(path) }
        }
        return tree
    }

    private static func entries(_ tree: Tree) -> [ManifestEntry] {
        let content = FileContent(size: 0, identity: nil, regions: [], extents: [])
        return tree.map { path, kind in
            ManifestEntry(
                path: ManifestPath(path), mode: 0o600, modificationTime: 0,
                kind: kind == .directory ? .directory : .file(content))
        }.sorted { $0.path < $1.path }
    }

    private static func kind(of entry: ManifestEntry) -> FileKind {
        if case .directory = entry.kind { .directory } else { .regular }
    }

    private static func list(_ tree: Tree, _ directory: String?) -> [DirectoryEntry] {
        let prefix = directory.map { $0 + "/" } ?? ""
        return tree.filter { $0.key.hasPrefix(prefix) && !$0.key.dropFirst(prefix.count).contains("/") }
            .map { DirectoryEntry(name: RawPath($0.key.dropFirst(prefix.count)), kind: $0.value) }
            .sorted { $0.name < $1.name }
    }

    private static func parents(_ path: String) -> [String] {
        let parts = path.split(separator: "/")
        return (1..<max(1, parts.count)).map { parts[..<$0].joined(separator: "/") }
    }

    @Test("a region stays only if all of it was there, its checksum is known, and it is the same")
    func regions() throws {
        func hash(_ number: Int) -> ContentHash { ContentHash(high: 1, low: UInt64(number)) }
        for round in 0..<500 {
            let random = SeededRandom(seed: testSeed() &* 10_000 &+ UInt64(round))
            let count = 1 + random.next(below: 20)
            let size = UInt64(count) << 20 - UInt64(random.next(below: 1 << 20))
            let present = UInt64(random.next(below: (count + 2) << 20))
            let known = (0..<count).map { _ in random.next(below: 5) > 0 }
            let same = (0..<count).map { _ in random.next(below: 3) > 0 }
            let content = FileContent(
                size: size, identity: nil, regions: (0..<count).map { known[$0] ? hash($0) : nil }, extents: [])
            let first = random.next(below: count)
            let range = first..<(first + 1 + random.next(below: count - first))
            let runs = try RegionComparison.differing(range, of: content, presentBytes: present) {
                (region) throws(KedgeError) in
                same[region] ? hash(region) : random.next(below: 2) == 0 ? nil : hash(999)
            }
            let expected = range.filter { region in
                !(known[region] && same[region] && min(UInt64(region + 1) << 20, size) <= present)
            }
            #expect(runs.flatMap(Array.init) == expected, "seed \(testSeed()), round \(round)")
            for (one, next) in zip(runs, runs.dropFirst()) { #expect(one.upperBound < next.lowerBound) }
        }
    }

    @Test("writing the blocks that differ makes a region the wanted one, and no block that is right is written")
    func blocks() throws {
        let size = RegionComparison.blockBytes
        for round in 0..<300 {
            let random = SeededRandom(seed: testSeed() &* 10_000 &+ UInt64(round))
            let count = random.next(below: 12 * size)
            let wanted = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7 ^ $0 >> 9) }
            var present = wanted
            for _ in 0..<random.next(below: 6) where count > 0 { present[random.next(below: count)] ^= 0x41 }
            let runs = wanted.withUnsafeBytes { wanted in
                present.withUnsafeBytes { RegionComparison.differingBlocks(wanted, $0) }
            }
            let expected = stride(from: 0, to: count, by: size).filter { start in
                wanted[start..<min(start + size, count)] != present[start..<min(start + size, count)]
            }
            #expect(runs.flatMap { stride(from: $0.lowerBound, to: $0.upperBound, by: size) } == expected)
            for run in runs { present.replaceSubrange(run, with: wanted[run]) }
            #expect(present == wanted, "seed \(testSeed()), round \(round)")
            for (one, next) in zip(runs, runs.dropFirst()) { #expect(one.upperBound < next.lowerBound) }
        }
    }
}
