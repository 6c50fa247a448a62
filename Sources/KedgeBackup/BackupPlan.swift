// Cuts the listing into work items, and puts what came of them together again. Pure but for the two functions at the
// end that stream from one disk file to another.
//
//   listing ──CopyPlan──▶ items ──workers──▶ results
//   listing + results ──ManifestAssembly──▶ entries of the manifest

package import KedgeCatalog
package import KedgeCore

/// Collects files into batches and cuts large relation files into ranges.
package struct CopyPlan: Sendable {
    private var batch: [CopyFile] = []
    private var batchBytes: UInt64 = 0

    /// A batch is full with this many listed bytes.
    package static let batchBytes: UInt64 = 4 << 20

    package init() {}

    /// The items that are complete with this entry. `parent` is what the parent backup has under its path.
    package mutating func add(_ index: UInt64, _ entry: ListedEntry, parent: ParentFile? = nil) -> [CopyItem] {
        let file: CopyFile
        switch entry.kind {
        case .directory, .symbolicLink, .file(.controlFile, _): return []
        case .extraFile(let size):
            file = CopyFile(index: index, path: entry.path, nature: .whole, sizeBytes: size, parent: parent)
        case .file(let nature, let size):
            file = CopyFile(index: index, path: entry.path, nature: nature, sizeBytes: size, parent: parent)
        }
        if case .relation = file.nature, file.sizeBytes > CopyLimits.rangeBytes {
            return stride(from: 0, to: file.sizeBytes, by: Int(CopyLimits.rangeBytes)).map { start in
                .range(file, start..<min(start + CopyLimits.rangeBytes, file.sizeBytes))
            }
        }
        batch.append(file)
        batchBytes += min(file.sizeBytes, CopyPlan.batchBytes)
        guard batch.count >= CopyLimits.batchFiles || batchBytes >= CopyPlan.batchBytes else { return [] }
        return finish().map { [$0] } ?? []
    }

    /// The batch that was not full yet.
    package mutating func finish() -> CopyItem? {
        guard !batch.isEmpty else { return nil }
        defer {
            batch = []
            batchBytes = 0
        }
        return .files(batch)
    }
}

/// Makes the manifest's entries from what was listed and what became of it.
package enum ManifestAssembly {
    /// The manifest's entry for a listed one. Nil for a file that had vanished. Throws `defect` for a file that no
    /// worker reported on (lesson 2).
    package static func entry(
        _ listed: ListedEntry, results: [CopyResult]
    ) throws(KedgeError) -> ManifestEntry? {
        let isExtra: Bool
        switch listed.kind {
        case .directory:
            return ManifestEntry(
                path: listed.path, mode: listed.mode, modificationTime: listed.modificationTime, kind: .directory)
        case .symbolicLink(let target):
            return ManifestEntry(
                path: listed.path, mode: listed.mode, modificationTime: listed.modificationTime,
                kind: .symbolicLink(target))
        case .file: isExtra = false
        case .extraFile: isExtra = true
        }
        guard !results.isEmpty else {
            throw KedgeError(
                .defect, "cannot finish the backup: nobody copied file \"\(listed.path)\"",
                hint: "Please report this; the backup is not used.")
        }
        guard let copied = CopyResult.assemble(results) else { return nil }
        return ManifestEntry(
            path: listed.path, mode: copied.mode, modificationTime: copied.time,
            kind: isExtra ? .extraFile(copied.content) : .file(copied.content))
    }

    /// Hands all entries to `body` in path order: those of the listing, and `added` (few, in any order), which are
    /// files that are not in the listing.
    package static func forEachEntry(
        of listing: FileListing, results: CopyResults, adding added: [ManifestEntry],
        _ body: (ManifestEntry) throws(KedgeError) -> Void
    ) throws(KedgeError) {
        var added = added.sorted { $0.path < $1.path }[...]
        try listing.forEach { index, listed throws(KedgeError) in
            while let next = added.first, next.path < listed.path {
                try body(next)
                added.removeFirst()
            }
            let found = listed.sizeBytes == nil ? [] : try results.results(of: index)
            if let entry = try entry(listed, results: found) { try body(entry) }
        }
        for entry in added { try body(entry) }
    }
}
