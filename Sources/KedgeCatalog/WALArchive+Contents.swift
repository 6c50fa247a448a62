// The objects of one WAL file, told apart by what they hold. Names of one segment may carry a tag or none.
//
//   all hold one content                               any of them serves
//   two hold different contents                        a conflict: none serves, whoever else can be read
//   one can't be read, and nothing tells what it held  damage of that one: it may have been another content than the
//                                                      rest have, so none serves, and nobody guesses

package import KedgeCore
import KedgeRepository

/// What the objects of one WAL file hold.
package struct WALFileContents: Sendable {
    package typealias StoredFile = WALArchive.StoredFile

    package let file: WALFileName
    /// The objects of each content that is known; these can stand in for each other.
    package fileprivate(set) var known: [(tag: ContentHash?, objects: [StoredFile])] = []
    /// An object whose content nobody can tell, with the reason. Only one without a tag is such, so there is one at
    /// most.
    package fileprivate(set) var unreadable: (object: StoredFile, error: KedgeError)?
    /// The cluster's name in the repository, with which full names begin.
    fileprivate let clusterName: String

    /// Whether all objects are known to hold the same.
    var isOne: Bool { known.count == 1 && unreadable == nil }

    /// The objects that hold the file's content, in the order of their names; empty where there is none.
    ///
    /// Throws `archive-conflict`; where only one object can't be read, what is wrong with it, by its full name.
    package func one() throws(KedgeError) -> [StoredFile] {
        let names = known.flatMap(\.objects).map(name)
        guard known.count < 2 else {
            throw KedgeError(
                .archiveConflict,
                "cannot use WAL file \"\(file.text)\": it was archived \(known.count) times with different content",
                detail: "The objects are \(names.joined(separator: ", ")).",
                hint:
                    "Two servers wrote the same timeline.  Run \"kedge cat\" on each to see who stored it, and remove "
                    + "the one that does not belong.")
        }
        guard let unreadable else { return known.first?.objects ?? [] }
        // Nothing else is there: whoever reads it says what is wrong.
        guard let other = names.first else { return [unreadable.object] }
        let error = unreadable.error
        throw KedgeError(
            error.code, "cannot use WAL file \"\(file.text)\": object \(name(unreadable.object)) cannot be read",
            detail: "\(RepositoryFailures.text(error))  \(other) holds that file as well, but nobody can tell whether "
                + "both were the same.",
            hint: "Put a good copy of the object back, from a mirror of the repository or an older version in its "
                + "store.  Without one find out with \"kedge cat\" who stored \(other) and when: if that is what the "
                + "server wrote, remove the object that cannot be read.")
    }

    private func name(_ object: StoredFile) -> String { "\"\(clusterName)/\(object.archived.name)\"" }
}

extension WALArchive {
    /// An archived file, and the size of its object in bytes.
    package typealias StoredFile = (archived: ArchivedFile, storedBytes: UInt64)

    /// What the objects of this WAL file hold. A single one is not looked at. Throws what reading throws where the
    /// repository itself, and not one object, is what failed.
    package func contents(of file: WALFileName) throws(KedgeError) -> WALFileContents {
        var contents = WALFileContents(file: file, clusterName: cluster.clusterName)
        let found = try lookUp(file)
        for stored in found {
            do throws(KedgeError) {
                var tag = stored.archived.tag
                if tag == nil, found.count > 1 { tag = try facts(of: stored.archived).tag }
                if let index = contents.known.firstIndex(where: { $0.tag == tag }) {
                    contents.known[index].objects.append(stored)
                } else {
                    contents.known.append((tag, [stored]))
                }
            } catch {
                // Removed meanwhile.
                if error.code == .notFound { continue }
                guard error.code.isAboutTheObject else { throw error }
                contents.unreadable = (stored, error)
            }
        }
        return contents
    }
}

extension WALArchive {
    /// Leaves in an inventory only those conflicts that `archive-get` refuses: one content under two names, with a tag
    /// and without, is none. A short read for each segment that has a name without a tag and another one.
    func settleConflicts(of inventory: inout WALInventory) throws(KedgeError) {
        for timeline in inventory.timelines {
            for (numbers, isPartial) in [(timeline.segmentConflicts, false), (timeline.partialConflicts, true)] {
                for number in numbers {
                    let name = WALSegment(timeline: timeline.id, number: number).fileName(
                        segmentSize: inventory.segmentSize)
                    if try contents(of: isPartial ? .partial(name + ".partial") : .segment(name)).isOne {
                        inventory.withdrawConflict(number, isPartial: isPartial, on: timeline.id)
                    }
                }
            }
        }
    }
}
