// Listings of a local store: a walk in the byte order of object names.
//
// In that order a directory stands where its name with "/" added stands: "a-b" and "a.b" come before what is in "a".
// What is no object is left out: temporary files, and names that no object can have (such as "lost+found"). A symbolic
// link that has an object's name is an error (LocalStore.swift, 3).

package import KedgeCore

extension LocalStore {
    package func list(
        below directory: ObjectName?, after: ObjectName?, limit: Int
    ) throws(KedgeError) -> ListPage {
        precondition(limit > 0, "a page holds at least one object")
        var walk = ListingWalk(store: self, after: after, capacity: limit + 1)
        try walk.visit(directory)
        try confirmRoot(whenLookingFor: nil)
        guard walk.found.count > limit else { return ListPage(entries: walk.found, next: nil) }
        let entries = Array(walk.found.prefix(limit))
        return ListPage(entries: entries, next: entries.last?.name)
    }

    package func listDirectories(
        below directory: ObjectName?, after: ObjectName?, limit: Int
    ) throws(KedgeError) -> DirectoryPage {
        precondition(limit > 0, "a page holds at least one directory")
        var found: [ObjectName] = []
        for child in try children(of: directory) where child.isDirectory && found.count <= limit {
            if let after, child.orderText <= after.text + "/" { continue }
            if try holdsObject(child.name) { found.append(child.name) }
        }
        try confirmRoot(whenLookingFor: nil)
        guard found.count > limit else { return DirectoryPage(directories: found, next: nil) }
        let page = Array(found.prefix(limit))
        return DirectoryPage(directories: page, next: page.last)
    }

    package func removeAbandonedWrites(before moment: Timestamp) throws(KedgeError) -> Int {
        try confirmRoot(whenLookingFor: nil)
        return try removeAbandonedWrites(in: nil, before: moment)
    }

    private func removeAbandonedWrites(
        in directory: ObjectName?, before moment: Timestamp
    ) throws(KedgeError) -> Int {
        var count = 0
        for child in try children(of: directory) where child.isDirectory {
            count += try removeAbandonedWrites(in: child.name, before: moment)
            _ = try FileSystem.removeEmptyDirectory(child.name.path, in: root)
        }
        do throws(KedgeError) {
            let opened = try openDirectory(directory)
            for entry in try Directory.entries(of: opened) where DurableFile.isTemporary(entry.name) {
                do throws(KedgeError) {
                    guard try FileStatus(of: entry.name, in: opened).modified < moment else { continue }
                    try FileSystem.removeFile(entry.name, in: opened)
                    count += 1
                } catch  where error.code == .notFound {
                    // Its writer has just published or removed it.
                }
            }
        } catch  where error.code == .notFound {
            // The directory went away with all that was in it.
        }
        return count
    }

    /// Whether there is an object anywhere below `directory`.
    private func holdsObject(_ directory: ObjectName) throws(KedgeError) -> Bool {
        let children = try children(of: directory)
        if children.contains(where: { !$0.isDirectory }) { return true }
        for child in children {
            if try holdsObject(child.name) { return true }
        }
        return false
    }

    /// Objects and directories directly below `directory`, in the order of a listing; none if it is not there.
    private func children(of directory: ObjectName?) throws(KedgeError) -> [Child] {
        do throws(KedgeError) {
            return try children(of: directory, opened: openDirectory(directory))
        } catch  where error.code == .notFound {
            return []
        }
    }

    /// The same of a directory that is open.
    fileprivate func children(
        of directory: ObjectName?, opened: borrowing FileDescriptor
    ) throws(KedgeError) -> [Child] {
        var children: [Child] = []
        for entry in try Directory.entries(of: opened) {
            guard let text = entry.name.text,
                let name = directory.map({ $0.appending(text) }) ?? ObjectName(text),
                // In its root a file system may show its snapshots (".snapshot"): whole repositories, and not ours.
                directory != nil || !text.hasPrefix(".")
            else { continue }
            switch entry.kind {
            case .regular: children.append(Child(name: name, isDirectory: false))
            case .directory: children.append(Child(name: name, isDirectory: true))
            case .symbolicLink: throw elsewhere(name, "It is a symbolic link.")
            case .other: continue
            }
        }
        return children.sorted { $0.orderText < $1.orderText }
    }
}

/// An object or a directory of objects.
private struct Child {
    let name: ObjectName
    let isDirectory: Bool
    let orderText: String

    init(name: ObjectName, isDirectory: Bool) {
        self.name = name
        self.isDirectory = isDirectory
        orderText = isDirectory ? name.text + "/" : name.text
    }
}

/// Collects objects in order until it has enough.
private struct ListingWalk {
    let store: LocalStore
    let after: ObjectName?
    let capacity: Int
    var found: [ListEntry] = []

    init(store: LocalStore, after: ObjectName?, capacity: Int) {
        self.store = store
        self.after = after
        self.capacity = capacity
    }

    mutating func visit(_ directory: ObjectName?) throws(KedgeError) {
        do throws(KedgeError) {
            let opened = try store.openDirectory(directory)
            for child in try store.children(of: directory, opened: opened) {
                if found.count == capacity { return }
                if child.isDirectory {
                    if !isPassed(child) { try visit(child.name) }
                } else if after.map({ child.name > $0 }) ?? true {
                    try add(child.name, in: opened)
                }
            }
        } catch  where error.code == .notFound {
            // There is no such directory, or it went away.
        }
    }

    /// Looked at where it lies: the way there need not be confirmed for each.
    private mutating func add(_ name: ObjectName, in directory: borrowing FileDescriptor) throws(KedgeError) {
        do throws(KedgeError) {
            let status = try FileStatus(of: RawPath(name.lastComponent), in: directory)
            found.append(ListEntry(name: name, status: try store.objectStatus(status, of: name)))
        } catch  where error.code == .notFound {
            // It was removed after the directory was read.
        }
    }

    /// Whether all that is in this directory comes before the page.
    private func isPassed(_ directory: Child) -> Bool {
        guard let after else { return false }
        return after.text > directory.orderText && !after.isBelow(directory.name)
    }
}
