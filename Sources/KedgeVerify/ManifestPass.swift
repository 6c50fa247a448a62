// One backup's way through its manifest, beside those of others.

import KedgeBackup
import KedgeCatalog
import KedgeCore
import KedgeRepository
import KedgeRestore

/// Where the check of one manifest is, and what it has found. Used by one thread at a time.
final class ManifestPass {
    let record: CommitRecord
    /// Whether what lies in several pieces is put together and read.
    let readsRegions: Bool
    /// The manifest's name.
    let manifest: ObjectName
    var verdict = ManifestVerdict()
    /// The object to blame for an error that ends the pass.
    var blamed: ObjectName
    /// The entry that comes next; nil before the first, after the last, and after an error.
    private(set) var next: ManifestEntry?
    private var reader: ManifestReader?
    private var survey: ManifestSurvey?

    init(_ record: CommitRecord, readsRegions: Bool, manifest: ObjectName) {
        self.record = record
        self.readsRegions = readsRegions
        self.manifest = manifest
        blamed = manifest
    }

    /// Goes to the first entry. Throws as `advance`.
    func begin(_ reader: consuming ManifestReader, versionDirectory: String?) throws(KedgeError) {
        self.reader = consume reader
        survey = ManifestSurvey(of: record, versionDirectory: versionDirectory)
        try advance()
    }

    /// Goes to the next entry. Throws `damaged`, `unsafe-path` and what reading throws.
    func advance() throws(KedgeError) {
        next = try reader?.next()
        if next == nil { try survey?.finish() }
    }

    /// The present entry, which a restore would accept. Throws `damaged` and `unsafe-path` where it would not.
    func take() throws(KedgeError) -> ManifestEntry? {
        guard let next else { return nil }
        try survey?.add(next)
        return next
    }

    /// Ends the pass.
    func fail(_ error: KedgeError) {
        verdict.error = error
        verdict.errorObject = blamed
        next = nil
        reader = nil
        survey = nil
    }
}

/// The regions of one file in one backup that lie in several pieces.
struct CompositeFile {
    let pass: ManifestPass
    let path: ManifestPath
    /// Those that are still to be read, ascending.
    var regions: [Range<Int>]
    var cursor: ContentCursor

    var next: Int? { regions.first?.lowerBound }

    /// Passes over the next region.
    mutating func advance() {
        guard let first = regions.first else { return }
        if first.count > 1 {
            regions[0] = first.lowerBound + 1..<first.upperBound
        } else {
            regions.removeFirst()
        }
    }
}
