// What follows from the protocol's calls alone, written once for all stores.

package import KedgeCore

extension ObjectStore {
    /// No limit that is known.
    package func space() throws(KedgeError) -> FileSystemSpace? { nil }

    /// Exactly the bytes of `range`. Throws as `read(_:at:into:)`.
    package func read(_ name: ObjectName, range: Range<UInt64>) throws(KedgeError) -> [UInt8] {
        guard let count = Int(exactly: range.upperBound - range.lowerBound) else {
            throw objectTooShort(name, location: location, end: range.upperBound)
        }
        var failure: KedgeError?
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
            do throws(KedgeError) {
                try read(name, at: range.lowerBound, into: UnsafeMutableRawBufferPointer(buffer))
                initialized = count
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        return bytes
    }

    /// The whole object. Throws `not-found`, and `damaged` if it is longer than `limit`: that much memory is risked.
    package func readAll(_ name: ObjectName, limit: Int) throws(KedgeError) -> [UInt8] {
        let bytes = try readPrefix(name, limit: limit + 1)
        guard bytes.count <= limit else {
            throw KedgeError(
                .damaged, "cannot read object \"\(name)\" of \(location)",
                detail: "It is longer than \(limit) bytes, the most that an object of this kind has.",
                hint: damagedObjectHint)
        }
        return bytes
    }

    /// Whether the object is there.
    package func contains(_ name: ObjectName) throws(KedgeError) -> Bool { try status(of: name) != nil }

    /// Hands every object below `directory` to `body`, page by page, in the order of `list`.
    package func forEachObject(
        below directory: ObjectName?, after: ObjectName? = nil, pageSize: Int = 1000,
        _ body: (ListEntry) throws(KedgeError) -> Void
    ) throws(KedgeError) {
        try visitObjects(below: directory, after: after, pageSize: pageSize) { (entry) throws(KedgeError) in
            try body(entry)
            return true
        }
    }

    /// The same until `body` returns false.
    package func visitObjects(
        below directory: ObjectName?, after: ObjectName? = nil, pageSize: Int = 1000,
        _ body: (ListEntry) throws(KedgeError) -> Bool
    ) throws(KedgeError) {
        var position = after
        repeat {
            let page = try list(below: directory, after: position, limit: pageSize)
            for entry in page.entries {
                guard try body(entry) else { return }
            }
            try checkProgress(position.map(\.text), page.next.map(\.text))
            position = page.next
        } while position != nil
    }

    /// The directories directly below `directory`, in the order of `listDirectories`.
    package func directories(below directory: ObjectName?) throws(KedgeError) -> [ObjectName] {
        var names: [ObjectName] = []
        var position: ObjectName?
        repeat {
            let page = try listDirectories(below: directory, after: position, limit: 1000)
            names += page.directories
            try checkProgress(position.map { $0.text + "/" }, page.next.map { $0.text + "/" })
            position = page.next
        } while position != nil
        return names
    }

    /// A store that gives the same position again would be listed for ever (lesson 19).
    private func checkProgress(_ position: String?, _ next: String?) throws(KedgeError) {
        guard let position, next == position else { return }
        throw KedgeError(
            .repositoryUnavailable, "could not list the objects of \(location)",
            detail: "The store's list does not advance beyond \"\(position)\".",
            hint: "Report this to the maker of the store: its listing is broken.")
    }
}

extension ObjectUpload {
    /// Adds bytes at the end. When it throws, none of them was taken, and the same call may be made again.
    package func append(_ bytes: [UInt8]) throws(KedgeError) {
        let failure: KedgeError? = bytes.withUnsafeBytes { buffer in
            do throws(KedgeError) {
                try append(buffer)
                return nil
            } catch {
                return error
            }
        }
        if let failure { throw failure }
    }
}

/// What to do about an object that is not what was stored.
private let damagedObjectHint =
    "Take it from another repository or an older backup, and find out what changed it: kedge never does."

/// The error of a store that was asked for bytes beyond an object's end.
func objectTooShort(_ name: ObjectName, location: String, end: UInt64) -> KedgeError {
    KedgeError(
        .damaged, "cannot read object \"\(name)\" of \(location)",
        detail: "The object ends before byte \(end).", hint: damagedObjectHint)
}

/// The error of a store that answered that an object is not there.
func objectNotFound(_ name: ObjectName, location: String) -> KedgeError {
    KedgeError(
        .notFound, "could not read object \"\(name)\" of \(location)", detail: "The store holds no such object.",
        hint: "Run \"kedge info\" to see what the repository holds.")
}
