import { Link, Navigate, useLocation } from "react-router";
import { AuthForm, comesFrom } from "../components/AuthForm";
import { Field } from "../components/Field";
import { useAuth } from "../context/AuthContext";

export function RegisterPage() {
  const { user, register } = useAuth();
  const { state } = useLocation();
  if (user) return <Navigate to={comesFrom(state)} replace />;
  return (
    <AuthForm
      title="Create an account"
      lead="A name, an address, a password: that is all."
      notice={null}
      action="Create account"
      onSubmit={(field) => register(field("username"), field("email"), field("password"))}
      footer={
        <>
          Already have one?{" "}
          <Link to="/login" state={state}>
            Log in
          </Link>
        </>
      }
    >
      <Field
        label="Username"
        name="username"
        autoComplete="nickname"
        hint="2 to 32 characters. Others see it."
        minLength={2}
        maxLength={64}
        required
        autoFocus
      />
      <Field label="Email" name="email" type="email" autoComplete="username" maxLength={254} required />
      <Field
        label="Password"
        name="password"
        type="password"
        autoComplete="new-password"
        hint="At least 8 characters."
        minLength={8}
        maxLength={128}
        required
      />
    </AuthForm>
  );
}
