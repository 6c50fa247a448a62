// What `info` learns from the facts of single segments: damage after the newest backup, and the last moment of a
// window.
//
// Facts are one short read for a segment, and there may be a million segments. So they are read from the end of the
// archive backwards, each at most once, and no more than `limit` of them.

package import KedgeCore
import KedgePostgres
import KedgeRepository

/// A short excerpt of a segment's facts.
struct SegmentExcerpt: Sendable, Equatable {
    /// Where the last record that ends in it begins; nil if none does, or nobody could tell.
    var lastRecord: LSN?
    /// The latest commit or abort in it.
    var latestEnd: Timestamp?
    /// Where its records stop being of use to recovery; nil where they do not.
    var defect: WALWalk.Defect?
    /// Whether the records were understood at all.
    var isUnderstood = true
}

/// Reads excerpts. Used by one thread at a time.
final class SegmentSurvey {
    private let archive: WALArchive
    private let interruption: Interruption
    private let limit: Int
    private var known: [WALLink: SegmentExcerpt] = [:]
    /// Segments whose facts could not be read, with the reason.
    private(set) var unreadable: [WALLink: KedgeError] = [:]

    init(_ archive: WALArchive, limit: Int, interruption: Interruption) {
        self.archive = archive
        self.limit = limit
        self.interruption = interruption
    }

    /// Whether a segment that was not read yet would be one too many.
    var isExhausted: Bool { known.count + unreadable.count >= limit }

    /// The excerpt of a file; nil where its facts are damaged, or the limit is reached.
    ///
    /// Throws `interrupted` and what reading throws where the repository, not the object, is what failed.
    func excerpt(of link: WALLink) throws(KedgeError) -> SegmentExcerpt? {
        let key = WALLink(segment: link.segment, isPartial: link.isPartial, previous: nil)
        if let found = known[key] { return found }
        guard !isExhausted, unreadable[key] == nil else { return nil }
        try interruption.checkpoint()
        do throws(KedgeError) {
            let excerpt = try read(key)
            known[key] = excerpt
            return excerpt
        } catch {
            guard error.code.isAboutTheObject else { throw error }
            unreadable[key] = error
            return nil
        }
    }

    private func read(_ link: WALLink) throws(KedgeError) -> SegmentExcerpt {
        let name = link.segment.fileName(segmentSize: archive.registration.walSegmentSize)
        let file: WALFileName = link.isPartial ? .partial(name + ".partial") : .segment(name)
        guard let archived = try archive.find(file).first else {
            throw KedgeError(
                .notFound, "could not read archived WAL file \"\(file.text)\"",
                detail: "It was listed a moment ago and is gone now.",
                hint: "Check that nothing else removes files from the repository.")
        }
        guard let facts = try archive.facts(of: archived).segment else { return SegmentExcerpt(isUnderstood: false) }
        let defects = [facts.suspect, try archive.minimalWAL(in: archived, facts)].compactMap { $0 }
        return SegmentExcerpt(
            lastRecord: facts.walk.lastRecord, latestEnd: facts.events.latestTime,
            defect: defects.min { $0.lsn < $1.lsn })
    }
}

extension ErrorCode {
    /// Whether the object that was read is what is wrong, and others may be sound.
    package var isAboutTheObject: Bool {
        switch self {
        case .damaged, .notFound, .keyMissing, .keyWrong, .formatUnknown, .walInvalid, .archiveConflict: true
        default: false
        }
    }
}
