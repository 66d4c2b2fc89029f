import { Link } from "react-router";
import { EmptyState } from "../components/EmptyState";
import { Pane } from "../components/Pane";

export function NotFoundPage() {
  return (
    <Pane title="Not found">
      <EmptyState title="There is nothing here">
        <p>The address may be old, or what it led to is not yours to see.</p>
        <Link className="button primary" to="/">
          Go to the start
        </Link>
      </EmptyState>
    </Pane>
  );
}
