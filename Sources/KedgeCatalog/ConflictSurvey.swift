// WAL files that are archived several times with different content, as `info` shows them: who stored each, and where
// the first two part. That takes both files whole, so it is done for a few only; of the others the names are told.

package import KedgeCore
import KedgePostgres
import KedgeRepository

/// A WAL file of which there are several contents.
package struct ArchivedConflict: Sendable {
    package let file: WALFileName
    /// What is known of each; empty where they were not looked at.
    package var copies: [WALConflict.Copy] = []
    /// Where the first two part; nil where that was not found out.
    package var conflict: WALConflict?
    /// What is wrong with one of them where that, and no other content, keeps all from being used.
    package var damage: KedgeError?
}

/// Looks at the conflicts of an inventory.
struct ConflictSurvey {
    let archive: WALArchive
    let interruption: Interruption
    /// How many conflicts are looked at: each costs two segments.
    var limit = 3

    /// Throws what reading throws where the repository itself, and not one object, is what failed.
    func run(_ inventory: WALInventory) throws(KedgeError) -> [ArchivedConflict] {
        var found: [ArchivedConflict] = []
        for timeline in inventory.timelines {
            for number in timeline.conflicts.sorted() {
                try interruption.checkpoint()
                let name = WALSegment(timeline: timeline.id, number: number).fileName(
                    segmentSize: inventory.segmentSize)
                let isLookedAt = found.count < limit
                for file in [WALFileName.segment(name), .partial(name + ".partial")] {
                    let copies = isLookedAt ? try archive.copies(of: file) : []
                    guard copies.count > 1, try !archive.contents(of: file).isOne else { continue }
                    found.append(try look(at: file, copies, inventory.segmentSize))
                }
                if !isLookedAt { found.append(ArchivedConflict(file: .segment(name))) }
            }
        }
        return found
    }

    private func look(
        at file: WALFileName, _ copies: [(archived: ArchivedFile, status: ObjectStatus)], _ segmentSize: UInt64
    ) throws(KedgeError) -> ArchivedConflict {
        var conflict = ArchivedConflict(file: file)
        var contents: [[UInt8]] = []
        for copy in copies {
            do throws(KedgeError) {
                if contents.count < 2 {
                    let read = try archive.read(copy.archived, threads: 1)
                    contents.append(read.bytes)
                    conflict.copies.append(WALConflict.Copy(read.facts, storedAt: copy.status.modified))
                } else {
                    let facts = try archive.facts(of: copy.archived)
                    conflict.copies.append(WALConflict.Copy(facts, storedAt: copy.status.modified))
                }
            } catch {
                // Gone meanwhile, or damaged: what can't be read can't be compared.
                guard error.code == .notFound || error.code.isAboutTheObject else { throw error }
            }
        }
        do throws(KedgeError) {
            _ = try archive.contents(of: file).one()
        } catch {
            guard error.code.isAboutTheObject else { throw error }
            if error.code != .archiveConflict { conflict.damage = error }
        }
        guard contents.count == 2 else { return conflict }
        let segment = WALSegment(fileName: file.text.prefix(24), segmentSize: segmentSize)
        conflict.conflict = WALConflict(
            file, conflict.copies[0], contents[0], conflict.copies[1], contents[1],
            segmentStart: segment?.startLSN(segmentSize: segmentSize))
        return conflict
    }
}
