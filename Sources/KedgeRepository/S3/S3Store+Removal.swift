// Removing objects of a bucket: DeleteObjects for many at once, or one request for each.

import Curl
import Expat
package import KedgeCore

extension S3Store {
    package func remove(_ names: [ObjectName]) throws(KedgeError) -> [RemoveFailure] {
        guard removesInBatches else { return try removeEach(names) }
        var failures: [RemoveFailure] = []
        for start in stride(from: 0, to: names.count, by: S3Store.removeBatch) {
            failures += try removeBatch(Array(names[start..<min(start + S3Store.removeBatch, names.count)]))
        }
        return failures.sorted { $0.name < $1.name }
    }

    /// Each in a request of its own. The names are then part of what is signed: stores that do not hold the body of
    /// DeleteObjects against its checksums would remove another object after a bit flipped on the way.
    private func removeEach(_ names: [ObjectName]) throws(KedgeError) -> [RemoveFailure] {
        let failures = Monitor([RemoveFailure]())
        try parallelFor(
            count: names.count, threads: S3Store.removalsInFlight, name: "s3-remove",
            makeState: { () throws(KedgeError) in () },
            body: { (_: inout Void, number) throws(KedgeError) in
                guard let error = try self.removeOne(names[number]) else { return }
                failures.update { $0.append(RemoveFailure(name: names[number], error: error)) }
            })
        return failures.update { $0 }.sorted { $0.name < $1.name }
    }

    /// Returns why the object could not be removed; throws where there is nothing that concerns it alone.
    private func removeOne(_ name: ObjectName) throws(KedgeError) -> KedgeError? {
        let request = S3Client.Request(
            method: .delete, key: client.location.key(of: name), attempt: "could not remove object \"\(name)\"")
        guard case .failure(let failure) = try client.send(request), !failure.isAbsentObject else { return nil }
        let error = failure.error(request.attempt, location: location)
        guard error.code != .configuration else { throw error }
        return try lockError(name, error) ?? error
    }

    /// How many removals without batches are under way at once.
    private static let removalsInFlight = 8

    /// The most names in one request (Amazon S3 API reference, DeleteObjects).
    private static let removeBatch = 1000

    private func removeBatch(_ names: [ObjectName]) throws(KedgeError) -> [RemoveFailure] {
        // Names have no character that XML would have to escape.
        let objects = names.map { "<Object><Key>\(client.location.key(of: $0))</Key></Object>" }.joined()
        let document =
            "<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Quiet>true</Quiet>\(objects)</Delete>"
        let request = S3Client.Request(
            method: .post, key: nil, query: [("delete", "")], body: [Array(document.utf8)],
            sink: .bytes(limit: 8 << 20), attempt: "could not remove \(names.count) object(s)")
        let response = try client.expect(request)
        let answer = try answer(response, root: "DeleteResult", attempt: request.attempt)
        var failures: [RemoveFailure] = []
        for element in answer.children("Error") where element.text(of: "Code") != "NoSuchKey" {
            // The status of one object's failure is not told; its code is.
            let failure = S3Failure(
                status: 200, code: element.text(of: "Code") ?? "InternalError", message: element.text(of: "Message"),
                requestID: response.header("x-amz-request-id"))
            guard let name = element.text(of: "Key").flatMap({ client.location.name(of: $0) }) else {
                // An error that names none of them may be about all.
                throw failure.error(request.attempt, location: location)
            }
            let error = failure.error("could not remove object \"\(name)\"", location: location)
            failures.append(RemoveFailure(name: name, error: try lockError(name, error) ?? error))
        }
        return failures
    }

    /// What to say where a lock of the store is the reason: until when. Nil where it is not.
    private func lockError(_ name: ObjectName, _ error: KedgeError) throws(KedgeError) -> KedgeError? {
        guard error.code == .permission else { return nil }
        let request = S3Client.Request(
            method: .get, key: client.location.key(of: name), headers: [("Range", "bytes=0-0")],
            sink: .bytes(limit: 1), attempt: error.message)
        guard case .good(let response) = try client.send(request),
            let text = response.header("x-amz-object-lock-retain-until-date"),
            let until = Timestamp(record: "\(text.prefix(19))Z"), until > client.now
        else { return nil }
        return KedgeError(
            .locked, "could not remove object \"\(name)\" yet: the store keeps it locked until \(until)",
            detail: error.detail, hint: "Nothing has to be done: a later \"kedge expire\" removes it.")
    }
}
